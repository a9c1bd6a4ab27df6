"""GeoTIFF: labels that lie where their image lies on the earth."""

import warnings
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from incontext.errors import InputError, first_line
from incontext.files import atomic
from incontext.formats.annotated_image import AnnotatedImage, ImageFolder, Size
from incontext.formats.output import check_not_source, check_text
from incontext.formats.results import LabelledImage
from incontext.images.folder import list_images
from incontext.images.image_file import MAX_PIXELS, is_upright
from incontext.images.raster import read_stored
from incontext.labels.color_mask import MAX_ID, Rgb
from incontext.labels.encodings import UNKNOWN, IdMap

Place = tuple[Any, Any]  # coordinate system, transform
# Two grids are the same if they lie apart by less than a hundredth of a pixel over 10 000 pixels.
SAME_GRID = 1e-6


def write(results: Iterable[LabelledImage], out: Path) -> Path:
    """Write NAME.tif for each image: ids in one band, uint8 or uint16, 0 = no data.

    Coordinate system, transform, ground control points and rational polynomials are the source's.

    Raises:
        InputError: rasterio is missing, or a source is not a GeoTIFF of the same size.
        OSError: it cannot be written.
    """
    rasterio = import_rasterio()
    for result in results:
        path = out / f"{result.name}.tif"
        names = {i: check_text(n, "name", xml=True) for i, n in result.names.items()}  # GDAL's tags
        check_not_source(path, result.source)
        wide = max(result.names, default=0) > 255
        values = result.labels.astype(np.uint16 if wide else np.uint8)
        with _open_source(rasterio, result) as source:
            profile = {
                "driver": "GTiff", "height": source.height, "width": source.width, "count": 1,
                "dtype": values.dtype.name, "nodata": 0, "compress": "deflate",
                "crs": source.crs, "transform": source.transform,
            }  # fmt: skip
            (points, points_system), rational = source.gcps, source.rpcs
        with atomic(path) as draft:
            draft.unlink(
                missing_ok=True
            )  # of a writer that was killed: GDAL opens what it replaces
            with rasterio.open(draft, "w", **profile) as raster:
                if points:
                    raster.gcps = (points, points_system)
                if rational:
                    raster.rpcs = rational
                raster.write(values, 1)
                if not wide:
                    raster.write_colormap(1, {i: (*rgb, 255) for i, rgb in result.colors.items()})
                raster.update_tags(1, **{f"class_{i}": n for i, n in names.items()})
    return out


def import_rasterio() -> Any:
    """Return the module rasterio.

    Raises:
        InputError: it is not installed.
    """
    try:
        import rasterio
    except ImportError:
        raise InputError("GeoTIFF needs rasterio: pip install 'incontext-seg[geo]'") from None
    return rasterio


def _open_source(rasterio: Any, result: LabelledImage) -> Any:
    """Open the image of a result, checked to be a GeoTIFF of its size."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a missing georeference: it is an error below
            source = rasterio.open(result.source)
    except Exception as error:  # GDAL has errors of its own
        raise InputError(f"{result.source}: not a GeoTIFF ({type(error).__name__})") from None
    if _place(source) is None:
        raise InputError(f"{result.source}: not a GeoTIFF: it does not say where on earth it lies")
    if not is_upright(result.source):
        raise InputError(
            f"{result.source}: is stored turned, by its orientation tag, which readers of GeoTIFF "
            "ignore, so labels would not lie on it; store it upright"
        )
    if (source.height, source.width) != result.labels.shape:
        raise InputError(
            f"{result.source} is {source.width}×{source.height}, its labels are "
            f"{result.labels.shape[1]}×{result.labels.shape[0]}"
        )
    return source


def _place(source: Any) -> Place | None:
    """Return where a raster lies on the earth; None if it is not georeferenced."""
    if source.crs or source.gcps[0] or source.rpcs or not source.transform.is_identity:
        return source.crs, source.transform
    return None


def read(path: Path, images: Path | None) -> Iterator[AnnotatedImage]:
    """Yield label rasters, NAME.tif or all of a folder: one band of whole numbers.

    Nodata other than 0 is unknown. The images are in `images`, a folder or one file, under the same
    names and, if they are georeferenced too, at the same place.

    Raises:
        InputError: rasterio is missing, no raster of labels, no such image.
    """
    rasterio = import_rasterio()
    if images is None:
        raise InputError(f"{path}: label rasters; say where their pictures are: images= (--images)")
    base = path if path.is_dir() else path.parent
    folder = None if images.is_file() else ImageFolder(images)  # listed once
    for raster in tiff_files(path) if path.is_dir() else [path]:
        try:
            stem = str(raster.relative_to(base).with_suffix(""))
            image = folder.find_stem(stem) if folder else images
            names, colors = _read_classes(rasterio, raster, image)
        except InputError as error:
            raise InputError(f"{raster}: {error}") from None
        read_labels = partial(_read_labels, raster)
        yield AnnotatedImage(str(raster), image, read_labels, names, colors)


def tiff_files(folder: Path) -> list[Path]:
    """Return the TIFF files of a folder, to any depth, sorted."""
    return list_images(folder, suffixes=(".tif", ".tiff")).paths


def _read_classes(
    rasterio: Any, raster: Path, image: Path
) -> tuple[dict[int, str], dict[int, Rgb]]:
    """Return names and colors of the ids, if the file has them; check that it lies at its image."""
    try:
        with rasterio.open(raster, driver="GTiff") as source:
            if source.count != 1 or np.dtype(source.dtypes[0]).kind not in "iuf":
                raise InputError(
                    f"{source.count} bands of {source.dtypes[0]}; accepted: one of whole numbers"
                )
            place = _place(source)
            tags = {
                key.removeprefix("class_"): name
                for key, name in source.tags(1).items()
                if key.startswith("class_")
            }
            has_palette = source.colorinterp[0].name == "palette"
            palette = source.colormap(1) if has_palette else {}
        with rasterio.open(image) as source:
            image_place = _place(source)
    except InputError:
        raise
    except Exception as error:  # GDAL has errors of its own
        raise InputError(f"cannot be read ({first_line(error)})") from None
    if place and image_place and not _same_grid(place, image_place):
        raise InputError(f"lies elsewhere on earth than {image}: {place} and {image_place}")
    names = {int(i): name for i, name in tags.items() if i.isdecimal() and len(i) < 6}
    return names, {i: rgb[:3] for i, rgb in palette.items() if i in names}


def _same_grid(a: Place, b: Place) -> bool:
    """Return whether two grids are the same up to `SAME_GRID` of a pixel per pixel."""
    grid = a[1]
    distance = max(abs(p - q) for p, q in zip(grid[:6], b[1][:6], strict=True))
    return bool(a[0] == b[0] and distance <= SAME_GRID * max(abs(grid.a), abs(grid.b)))


def _read_labels(path: Path, size: Size) -> IdMap:
    values, storage = read_stored(path, path.name, MAX_PIXELS)
    if storage.lossy:
        raise InputError(
            f"{storage.lossy} is lossy, its values are not exact; store ids losslessly"
        )
    nodata = storage.nodata
    unknown = np.zeros(values.shape, bool)
    if nodata:  # 0 is the background
        unknown = np.isnan(values) if np.isnan(nodata) else values == nodata
    values = np.where(unknown, 0, values)
    if values.dtype.kind == "f" and not (values == np.round(values)).all():
        raise InputError("numbers that are not whole; accepted: ids, whole numbers")
    if values.min() < 0 or values.max() > MAX_ID:
        raise InputError(f"ids {values.min()} … {values.max()}; accepted: 0 … {MAX_ID}")
    return np.where(unknown, UNKNOWN, values).astype(np.int32)
