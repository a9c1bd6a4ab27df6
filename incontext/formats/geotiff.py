"""GeoTIFF: labels that lie where their picture lies on the earth."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from incontext.errors import InputError
from incontext.formats.labelled import Labelled


def write(results: Iterable[Labelled], out: Path) -> Path:
    """NAME.tif for each picture: ids in one band, uint8 or uint16, 0 no data; the coordinate
    system, transform and ground control points are those of the source.

    Raises:
        InputError: rasterio is missing, or a source is no GeoTIFF of the same size.
        OSError: it cannot be written.
    """
    rasterio = check_writing()
    for one in results:
        path = out / f"{one.name}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        wide = max(one.names, default=0) > 255
        values = one.labels.astype(np.uint16 if wide else np.uint8)
        with _opened(rasterio, one) as source:
            profile = {
                "driver": "GTiff", "height": source.height, "width": source.width, "count": 1,
                "dtype": values.dtype.name, "nodata": 0, "compress": "deflate",
                "crs": source.crs, "transform": source.transform,
            }  # fmt: skip
            points, system = source.gcps
        draft = path.with_name(f".{path.name}.part")
        try:
            with rasterio.open(draft, "w", **profile) as target:
                if points:
                    target.gcps = (points, system)
                target.write(values, 1)
                if not wide:
                    target.write_colormap(1, {i: (*rgb, 255) for i, rgb in one.colors.items()})
                target.update_tags(1, **{f"class_{i}": n for i, n in one.names.items()})
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    return out


def check_writing() -> Any:
    """Rasterio.

    Raises:
        InputError: it is not installed.
    """
    try:
        import rasterio
    except ImportError:
        raise InputError("GeoTIFF needs rasterio: pip install 'incontext-seg[geo]'") from None
    return rasterio


def _opened(rasterio: Any, one: Labelled) -> Any:
    try:
        source = rasterio.open(one.source)
    except Exception as error:  # GDAL has errors of its own
        raise InputError(f"{one.source}: not a GeoTIFF ({type(error).__name__})") from None
    if source.crs is None and not source.gcps[0]:
        raise InputError(f"{one.source}: not a GeoTIFF: it does not say where on earth it lies")
    if (source.height, source.width) != one.labels.shape:
        raise InputError(
            f"{one.source} is {source.width}×{source.height}, its labels are "
            f"{one.labels.shape[1]}×{one.labels.shape[0]}"
        )
    return source
