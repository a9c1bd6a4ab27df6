"""Images: read as upright RGB, whatever they come in, and resized."""

import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from einops import rearrange
from PIL import Image, ImageOps

from incontext.errors import InputError
from incontext.images import dicom, raster, volume
from incontext.images.contrast import GENERAL, Mask, stretch
from incontext.images.data_mask import attach, data_mask, join, stored_mask, turned
from incontext.images.image_file import MAX_PIXELS, decode, open_stored
from incontext.images.stored import Storage

if TYPE_CHECKING:
    from torch import Tensor

ImageLike: TypeAlias = "str | Path | Image.Image | np.ndarray[Any, Any] | Tensor"


def read_image(source: ImageLike) -> Image.Image:
    """Read any image as an upright RGB image.

    Args:
        source: a path; a PIL image of any mode; an array (H, W), (H, W, 1), (H, W, 3) or
            (H, W, 4), or a tensor of these shapes or with channels first; uint8, bool, uint16, or
            float in 0–1.

    EXIF orientation is applied to files and PIL images. Transparency is laid over white. Images
    with more than 8 bits are stretched so that their percentiles 0.1 and 99.9 become 0 and 255.
    TIFF files of several bands, or of deep values with a georeference or nodata, are converted by
    `incontext.images.raster.read`, which needs rasterio. DICOM files and slices of NIfTI volumes
    (scan.nii.gz/axial/012) are windowed, see `incontext.images.dicom` and `.volume`. Pixels without
    data (NaN, nodata, alpha 0, masked) are noted: see `incontext.images.data_mask`.

    Raises:
        InputError: any other source, or an image that cannot be read.
    """
    if isinstance(source, (str, Path)):
        return read_file(Path(source), str(source))
    if isinstance(source, Image.Image):
        return _to_upright(source, decode(source, "picture"), "picture")
    return _to_upright(_from_array(source), Storage(), "picture")


def read_file(source: Path | bytes, name: str) -> Image.Image:
    """Read an image file, a slice of a volume, or the content of a file as `read_image` does.

    Raises:
        InputError: it cannot be read; the message begins with `name`.
    """
    if isinstance(source, Path) and volume.SlicePath.parse(source):
        return _to_upright(volume.read_slice(source), Storage(), name)
    if isinstance(source, Path) and dicom.is_dicom(source):
        return _to_upright(dicom.read(source, MAX_PIXELS), Storage(), name)
    # Not Path.is_file, here and below: that raises OSError of names that are too long.
    exists = isinstance(source, bytes) or os.path.isfile(source)
    if exists and raster.is_raster(source):
        return _to_upright(raster.read(source, name, MAX_PIXELS), Storage(), name)
    image, storage = open_stored(source, name)
    raster.warn_of_alpha(image, name)
    return _to_upright(image, storage, name)


def _to_upright(image: Image.Image, storage: Storage, name: str) -> Image.Image:
    if image.width < 1 or image.height < 1:
        raise InputError(f"a picture of {image.width}×{image.height} has no pixels")
    try:
        return _upright_rgb(image, storage, name)
    except Exception as error:  # damaged metadata, a mode that Pillow cannot convert
        raise InputError(
            f"{name}: cannot be made RGB from mode {image.mode} ({type(error).__name__}: {error})"
        ) from None


def _upright_rgb(image: Image.Image, storage: Storage, name: str) -> Image.Image:
    mask, orientation = stored_mask(image, storage), image.getexif().get(0x0112, 1)
    mask = join(data_mask(image), turned(mask, orientation))
    image = ImageOps.exif_transpose(image) or image
    if image.mode.startswith("I") or image.mode == "F":
        image = _stretch(storage.restore(np.asarray(image)), mask, name)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        mask = join(mask, np.asarray(image.getchannel("A")) > 0)
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    rgb = image.convert("RGB") if image.mode != "RGB" else image.copy()
    rgb.info = {}  # metadata of the source is wrong for what is made of this image
    attach(rgb, mask)
    return rgb


def _from_array(source: Any) -> Image.Image:
    """Convert an array or a tensor to PIL; shapes and dtypes as in `read_image`."""
    array, mask = to_numpy(source), None
    if isinstance(array, np.ma.MaskedArray):  # as rasterio gives what has no data
        mask, array = np.ma.getmaskarray(array), array.filled(0)
    if array.ndim == 3 and array.shape[-1] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = rearrange(array, "c h w -> h w c")
        mask = None if mask is None else rearrange(mask, "c h w -> h w c")
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (3, 4))):
        raise InputError(
            f"a picture of shape {array.shape}; accepted: (H, W), (H, W, 3), (H, W, 4), or "
            "channels first"
        )
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    elif array.dtype == np.uint16 and array.ndim == 2:
        array = array.astype(np.uint16)  # in this machine's order of bytes
    elif np.issubdtype(array.dtype, np.floating):
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise InputError("a float picture must lie in 0–1 without NaN; or pass uint8 in 0–255")
        array = np.round(array * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise InputError(
            f"a picture of dtype {array.dtype}; accepted: uint8, bool, uint16 (H, W), float in 0–1"
        )
    image = Image.fromarray(np.ascontiguousarray(array))
    if mask is not None:
        attach(image, np.asarray(~(mask.all(-1) if mask.ndim == 3 else mask)))
    return image


def to_numpy(source: Any) -> np.ndarray[Any, Any]:
    """Convert an array or a tensor to a numpy array.

    Raises:
        InputError: neither of the two, or a tensor that numpy cannot represent.
    """
    torch = sys.modules.get("torch")  # where there is a tensor it was imported
    if torch is not None and isinstance(source, torch.Tensor):
        try:
            source = source.detach().cpu()
            # numpy has no bfloat16
            return (source.float() if source.dtype == torch.bfloat16 else source).numpy()
        except (RuntimeError, TypeError, NotImplementedError) as error:  # sparse, meta, quantized
            reason = str(error).splitlines()[0]
            raise InputError(f"a {source.layout} tensor of {source.dtype}: {reason}") from None
    if isinstance(source, np.ndarray):
        return source
    raise InputError(f"{type(source).__name__} given; accepted: path, PIL, numpy array, tensor")


def _stretch(values: np.ndarray[Any, Any], mask: Mask | None, name: str) -> Image.Image:
    """Stretch numbers (H, W) to 8-bit gray; what holds no data becomes white."""
    valid_mask = np.ones(values.shape, bool) if mask is None else mask
    if not valid_mask.any():
        warnings.warn(f"{name}: no pixel holds data; it is shown white", stacklevel=6)
        return Image.new("L", values.shape[::-1], raster.WHITE)
    levels = stretch(values[None], valid_mask[None], GENERAL)[0]
    levels[~valid_mask] = raster.WHITE
    return Image.fromarray(levels)


def resize_nearest(array: np.ndarray[Any, Any], size: tuple[int, int]) -> np.ndarray[Any, Any]:
    """Resize (H, W, …) to (height, width, …): each pixel is the source pixel under its center.

    Works for any dtype; equals Pillow's NEAREST.
    """
    rows, columns = _centers(array.shape[0], size[0]), _centers(array.shape[1], size[1])
    return array[rows[:, None], columns[None]]


def _centers(source: int, target: int) -> np.ndarray[Any, Any]:
    """Return for each target position the source position under its center."""
    steps = np.full(target, source / target)
    steps[0] /= 2
    # A running sum, as Pillow has it: where a center lies on a border, its rounding decides.
    return np.cumsum(steps).astype(int).clip(max=source - 1)
