"""GeoTIFF: labels that lie where their picture lies on the earth."""

import warnings
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from incontext.errors import InputError, first_line
from incontext.files import atomic
from incontext.formats.annotated_image import Folder, Found, Size
from incontext.formats.results import Labelled
from incontext.labels.encodings import UNKNOWN, IdMap


def write(results: Iterable[Labelled], out: Path) -> Path:
    """NAME.tif for each picture: ids in one band, uint8 or uint16, 0 no data; the coordinate
    system, transform, ground control points and rational polynomials are those of the source.

    Raises:
        InputError: rasterio is missing, or a source is no GeoTIFF of the same size.
        OSError: it cannot be written.
    """
    rasterio = check_writing()
    for one in results:
        path = out / f"{one.name}.tif"
        wide = max(one.names, default=0) > 255
        values = one.labels.astype(np.uint16 if wide else np.uint8)
        with _opened(rasterio, one) as source:
            profile = {
                "driver": "GTiff", "height": source.height, "width": source.width, "count": 1,
                "dtype": values.dtype.name, "nodata": 0, "compress": "deflate",
                "crs": source.crs, "transform": source.transform,
            }  # fmt: skip
            (points, system), rational = source.gcps, source.rpcs
        with atomic(path) as draft, rasterio.open(draft, "w", **profile) as target:
            if points:
                target.gcps = (points, system)
            if rational:
                target.rpcs = rational
            target.write(values, 1)
            if not wide:
                target.write_colormap(1, {i: (*rgb, 255) for i, rgb in one.colors.items()})
            target.update_tags(1, **{f"class_{i}": n for i, n in one.names.items()})
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a missing georeference: it is an error below
            source = rasterio.open(one.source)
    except Exception as error:  # GDAL has errors of its own
        raise InputError(f"{one.source}: not a GeoTIFF ({type(error).__name__})") from None
    if not _georeferenced(source):
        raise InputError(f"{one.source}: not a GeoTIFF: it does not say where on earth it lies")
    if (source.height, source.width) != one.labels.shape:
        raise InputError(
            f"{one.source} is {source.width}×{source.height}, its labels are "
            f"{one.labels.shape[1]}×{one.labels.shape[0]}"
        )
    return source


def _georeferenced(source: Any) -> bool:
    return bool(source.crs or source.gcps[0] or source.rpcs or not source.transform.is_identity)


def read(path: Path, images: Path | None) -> Iterator[Found]:
    """Label rasters, NAME.tif or all of a folder: one band of whole numbers. Nodata other than 0
    is unknown. The pictures are in `images`, a folder or one file, under the same names and, where
    they are georeferenced too, at the same place.

    Raises:
        InputError: rasterio is missing, no raster of labels, no such picture.
    """
    rasterio = check_writing()
    if images is None:
        raise InputError(f"{path}: label rasters; say where their pictures are: images= (--images)")
    base = path if path.is_dir() else path.parent
    folder = None if images.is_file() else Folder(images)  # listed once
    for raster in tifs(path) if path.is_dir() else [path]:
        try:
            stem = str(raster.relative_to(base).with_suffix(""))
            picture = folder.named(stem) if folder else images
            names, colors = _about(rasterio, raster, picture)
        except InputError as error:
            raise InputError(f"{raster}: {error}") from None
        yield Found(str(raster), picture, partial(_read, rasterio, raster), names, colors)


def tifs(folder: Path) -> list[Path]:
    """TIFF files of a folder, to any depth."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".tif", ".tiff"))


def _about(rasterio: Any, raster: Path, picture: Path) -> tuple[dict[int, str], dict[int, Any]]:
    """Names and colors of the ids, where the file has them; its place is compared."""
    try:
        with rasterio.open(raster, driver="GTiff") as source:
            if source.count != 1 or np.dtype(source.dtypes[0]).kind not in "iu":
                raise InputError(
                    f"{source.count} bands of {source.dtypes[0]}; accepted: one of whole numbers"
                )
            place = (source.crs, source.transform) if _georeferenced(source) else None
            said = {k.removeprefix("class_"): name for k, name in source.tags(1).items()
                    if k.startswith("class_")}  # fmt: skip
            colored = source.colorinterp[0].name == "palette"
            table = source.colormap(1) if colored else {}
        with rasterio.open(picture) as source:
            there = (source.crs, source.transform) if _georeferenced(source) else None
    except InputError:
        raise
    except Exception as error:  # GDAL has errors of its own
        raise InputError(f"cannot be read ({first_line(error)})") from None
    if place and there and not _same(place, there):
        raise InputError(f"lies elsewhere on earth than {picture}: {place} and {there}")
    names = {int(i): name for i, name in said.items() if i.isdecimal()}
    return names, {i: rgb[:3] for i, rgb in table.items() if i in names}


def _same(one: tuple[Any, Any], other: tuple[Any, Any]) -> bool:
    """Whether two grids are one, to a hundredth of a pixel over 10 000 pixels."""
    (system, grid), (_, second) = one, other
    apart = max(abs(a - b) for a, b in zip(grid[:6], second[:6], strict=True))
    return bool(system == other[0] and apart <= 1e-6 * max(abs(grid.a), abs(grid.b)))


def _read(rasterio: Any, raster: Path, size: Size) -> IdMap:
    with rasterio.open(raster) as source:
        values, nodata = source.read(1).astype(np.int64), source.nodata
    unknown = np.zeros(values.shape, bool) if not nodata else values == nodata
    values[unknown] = 0
    if values.min() < 0 or values.max() > 65_535:
        raise InputError(f"ids {values.min()} … {values.max()}; accepted: 0 … 65535")
    values[unknown] = UNKNOWN
    return values.astype(np.int32)
