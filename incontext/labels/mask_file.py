"""Mask files: the values of a mask exactly as they are stored, whatever file they come in."""

import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from incontext.errors import InputError, first_line
from incontext.images import image_file, raster
from incontext.images.image import to_numpy
from incontext.images.stored import LOSSY_FORMATS, Storage
from incontext.labels.color_mask import Rgb

Values = np.ndarray[Any, Any]

NPY = b"\x93NUMPY"


@dataclass(frozen=True, eq=False)
class MaskValues:
    """Values of a mask.

    Attributes:
        values: numbers (H, W), or colors (H, W, 3) uint8; of an array any shape.
        palette: colors of the values, if the file has a palette.
        no_data: (H, W) bool, where the file itself says that there is none; None: nowhere.
        is_array: of an array, whose axes are not settled yet.
    """

    values: Values
    palette: dict[int, Rgb] = field(default_factory=dict)
    no_data: Values | None = None
    is_array: bool = False


def read_mask(source: Any, name: str, thresholded: bool) -> MaskValues:
    """Read the values of a mask.

    Args:
        source: a path, the content of a file, a PIL image, an array or a tensor.
        name: of the source, for messages.
        thresholded: a threshold follows, so that values need not be exact, and what is shown of a
            palette counts.

    Raises:
        InputError: not readable, lossy, turned by EXIF, transparent, or a mode that is no mask.
    """
    if isinstance(source, (str, Path, io.BytesIO)):
        content = source.getvalue() if isinstance(source, io.BytesIO) else Path(source)
        if _is_npy(content):
            return _of_array(_read_npy(content, name), name)
        stored = _read_beyond_pillow(content, name)
        if stored is not None:
            values, storage = stored
            _check(storage, name, thresholded)
            return MaskValues(_channels(values, name), no_data=_no_data(values, storage))
        image, storage = image_file.open_stored(content, name)
    elif isinstance(source, Image.Image):
        image, storage = source, image_file.decode(source, name)
    else:
        return _of_array(to_numpy(source), name)
    _check(storage, name, thresholded)
    return _of_image(image, storage, name, thresholded)


def _read_beyond_pillow(content: Path | bytes, name: str) -> tuple[Values, Storage] | None:
    """Read a TIFF that Pillow cannot open; None for all else."""
    if (isinstance(content, Path) and not os.path.isfile(content)) or not raster.is_tiff(content):
        return None
    if raster.beyond_pillow(content) or not _opens(content):
        return raster.read_stored(content, name, image_file.MAX_PIXELS)
    return None


def _opens(content: Path | bytes) -> bool:
    """Return whether Pillow knows what to do with a file."""
    try:
        with raster.open_source(content) as file:
            image_file.open_header(file, "")
    except UnidentifiedImageError:
        return False
    except Exception:  # reported when it is read
        return True
    return True


def _check(storage: Storage, name: str, thresholded: bool) -> None:
    """Raise InputError unless values are exact (or a threshold follows), and lie as stored."""
    if storage.turned:
        raise InputError(
            f"{name}: a mask with EXIF orientation can be meant as stored or as shown; store it "
            "without, upright like its picture"
        )
    if storage.lossy and not thresholded:
        verb = "is" if storage.lossy not in LOSSY_FORMATS[2:] else "can be"
        raise InputError(
            f"{name}: {storage.lossy} {verb} lossy, its values are not exact; pass threshold=128 "
            "(--threshold 128) for a binary mask; ids and colors must be stored as PNG"
        )


def _of_image(image: Image.Image, storage: Storage, name: str, thresholded: bool) -> MaskValues:
    """Return the values of a decoded image."""
    if storage.deep_colors:
        raise InputError(
            f"{name}: colors of more than 8 bits a channel; accepted: colors in 8 bits, ids in one "
            "channel of up to 64"
        )
    if image.mode in ("RGBA", "LA", "PA"):
        alpha = np.asarray(image.getchannel("A"))
        if alpha.min() < 255:
            raise InputError(
                f"{name}: a mask with transparency can mean the alpha or the colors; store one "
                "of them alone"
            )
        image = image.convert({"RGBA": "RGB", "LA": "L", "PA": "P"}[image.mode])
    if image.mode not in ("1", "L", "P", "RGB", "I", "F") and not image.mode.startswith("I;16"):
        raise InputError(f"{name}: mode {image.mode}; accepted: 1, L, P, I;16, I, RGB")
    palette = {}
    values = storage.restore(np.asarray(image))
    no_data = _no_data(values, storage)
    if thresholded and image.mode == "P":
        values = np.asarray(image.convert("RGB"))  # what is shown counts, not the indices
    elif image.mode == "P":
        table = np.array(image.getpalette("RGB") or [], dtype=int).reshape(-1, 3)
        palette = {i: (int(c[0]), int(c[1]), int(c[2])) for i, c in enumerate(table)}
    return MaskValues(values, palette, no_data)


def _no_data(values: Values, storage: Storage) -> Values | None:
    """Return where the file's own nodata value is; 0 is the background, as GDAL's masks have it."""
    if not storage.nodata or values.ndim != 2:
        return None
    mask = np.isnan(values) if np.isnan(storage.nodata) else values == storage.nodata
    return np.asarray(mask) if mask.any() else None


def _channels(values: Values, name: str) -> Values:
    """Return (H, W), or (H, W, 3) uint8."""
    if values.ndim == 2 or (values.shape[-1] == 3 and values.dtype == np.uint8):
        return values
    raise InputError(
        f"{name}: {values.shape[-1]} bands of {values.dtype}; accepted: one band of ids, or three "
        "of 8-bit colors"
    )


def _of_array(array: Values, name: str) -> MaskValues:
    """Return an array as it is, unless it is a masked array that masks anything."""
    if isinstance(array, np.ma.MaskedArray):
        if np.ma.getmaskarray(array).any():
            raise InputError(
                f"{name}: masked pixels of a masked array can be background or unknown; pass "
                "array.filled(0), or array.filled(255) with ignore=255"
            )
        array = array.data
    return MaskValues(array, is_array=True)


def _is_npy(content: Path | bytes) -> bool:
    if isinstance(content, Path) and not os.path.isfile(content):
        return False
    try:
        with raster.open_source(content) as file:
            return file.read(len(NPY)) == NPY
    except OSError:  # reported when it is read
        return False


def _read_npy(content: Path | bytes, name: str) -> Values:
    """Read an array that numpy saved.

    Raises:
        InputError: damaged, or of Python objects, which are never unpickled.
    """
    try:
        with raster.open_source(content) as file:
            return np.asarray(np.load(io.BytesIO(file.read()), allow_pickle=False))
    except Exception as error:  # numpy raises nearly anything on a damaged header
        raise InputError(f"{name}: no readable .npy of numbers ({first_line(error)})") from None
