"""Images: open, orient, resize, normalize, restore. The only home of mean and std arithmetic."""

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import torch
from einops import rearrange
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError, features
from torch import Tensor

from incontext.errors import InputError
from incontext.images import raster

ImageLike: TypeAlias = "str | Path | Image.Image | np.ndarray[Any, Any] | Tensor"

MAX_PIXELS = 200_000_000
# What folders are searched for; a file given by its path is read whatever its suffix.
_ALWAYS = (
    ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff",
    ".webp",
)  # fmt: skip
# Suffixes that Pillow reads where it was built with a decoder for them.
_WITH_DECODER = {
    "avif": (".avif",),
    "jpg_2000": (".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx"),
}
SUFFIXES = frozenset(_ALWAYS).union(
    *(suffixes for decoder, suffixes in _WITH_DECODER.items() if features.check(decoder))
)
# Images too, but not read here: what is left out of a folder is said.
OTHER_SUFFIXES = frozenset((
    ".arw", ".cr2", ".cr3", ".czi", ".dcm", ".dng", ".exr", ".hdr", ".heic", ".heics", ".heif",
    ".hif", ".ico", ".jxl", ".lif", ".nd2", ".nef", ".nii", ".orf", ".pef", ".psd", ".raf", ".rw2",
    ".svg", ".tga",
)).union(*_WITH_DECODER.values()) - SUFFIXES  # fmt: skip
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # and all else that Pillow reads


_pillow_limit = threading.Lock()


@contextmanager
def _unlimited() -> Iterator[None]:
    """Lift Pillow's limit (179 megapixels) while a header is read; `MAX_PIXELS` is checked then."""
    with _pillow_limit:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def open_header(file: str | Path | IO[bytes], name: str) -> Image.Image:
    """Open an image of at most `MAX_PIXELS` pixels; it is not decoded yet.

    Raises:
        InputError: more pixels; the message begins with `name`.
        Exception: what Pillow raises for a file that is damaged, or not an image.
    """
    with _unlimited():
        image = Image.open(file)
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise InputError(
            f"{name}: {image.width}×{image.height} is more than {MAX_PIXELS // 10**6} "
            "megapixels; cut it into parts first"
        )
    return image


def is_upright(path: Path) -> bool:
    """Return whether an image file is stored as it is shown, without an orientation to apply."""
    try:
        with open_header(path, str(path)) as image:
            return image.getexif().get(ExifTags.Base.Orientation, 1) in (0, 1)
    except Exception:  # not for Pillow; reading it says what is wrong
        return True


def open_file(path: str | Path) -> Image.Image:
    """Open and decode an image file: its first frame as stored, in its mode and orientation.

    Raises:
        InputError: no such file, not an image, damaged, or more than `MAX_PIXELS` pixels.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: {_no_file(path)}")
    try:
        with path.open("rb") as file:
            image = open_header(file, str(path))
            # Counted before decoding, since counting leaves the first frame.
            frames = getattr(image, "n_frames", 1)
            decode(image, str(path))
    except InputError:
        raise
    except UnidentifiedImageError:
        problem = "not a picture" if path.stat().st_size else "an empty file"
        raise InputError(f"{path}: {problem}; accepted: {', '.join(FORMATS)}") from None
    except PermissionError:
        raise InputError(f"{path}: no permission to read it") from None
    except Exception as error:  # decoders raise nearly anything on damaged data
        raise InputError(f"{path}: {_damage(error)}") from None
    # MPO: a photo with its preview or depth map behind it, as many phones write.
    if frames > 1 and image.format != "MPO":
        warnings.warn(f"{path}: {frames} frames; the first one is used", stacklevel=2)
    return image


def _no_file(path: Path) -> str:
    if not path.is_dir():
        return "a link to a file that is gone" if path.is_symlink() else "no such file"
    return "a folder" if os.access(path, os.R_OK | os.X_OK) else "no permission to list this folder"


def decode(image: Image.Image, name: str) -> None:
    """Decode an image that was opened but not read yet.

    Raises:
        InputError: damaged or closed; the message begins with `name`.
    """
    try:
        image.load()
    except Exception as error:  # see open_file
        raise InputError(f"{name}: {_damage(error)}") from None


def _damage(error: Exception) -> str:
    return f"damaged picture ({type(error).__name__}: {error})"


def read_image(source: ImageLike) -> Image.Image:
    """Read any image as an upright RGB image.

    Args:
        source: a path; a PIL image of any mode; an array (H, W), (H, W, 1), (H, W, 3) or
            (H, W, 4), or a tensor of these shapes or with channels first; uint8, bool, uint16, or
            float in 0–1.

    EXIF orientation is applied to files and PIL images. Transparency is laid over white. Images
    with more than 8 bits are stretched so that their lowest and highest value become 0 and 255.
    TIFF files of several bands, or of deep values with a georeference or nodata, are converted by
    `incontext.images.raster.read`, which needs rasterio.

    Raises:
        InputError: any other source, or an image that cannot be read.
    """
    name = str(source) if isinstance(source, (str, Path)) else "picture"
    if isinstance(source, (str, Path)):
        path = Path(source)
        deep = path.is_file() and raster.is_raster(path)
        image = raster.read(path, MAX_PIXELS) if deep else open_file(path)
        raster.warn_of_alpha(image, name)
    elif isinstance(source, Image.Image):
        image = source
        decode(image, name)
    else:
        image = _from_array(source)
    if image.width < 1 or image.height < 1:
        raise InputError(f"a picture of {image.width}×{image.height} has no pixels")
    try:
        return _upright_rgb(image)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    except Exception as error:  # damaged metadata, a mode that Pillow cannot convert
        raise InputError(
            f"{name}: cannot be made RGB from mode {image.mode} ({type(error).__name__}: {error})"
        ) from None


def _upright_rgb(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image) or image
    if image.mode.startswith("I") or image.mode == "F":
        image = _stretch(np.asarray(image))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    rgb = image.convert("RGB") if image.mode != "RGB" else image.copy()
    rgb.info = {}  # metadata of the source is wrong for what is made of this image
    return rgb


def _from_array(source: Any) -> Image.Image:
    """Convert an array or a tensor to PIL; shapes and dtypes as in `read_image`."""
    array = to_numpy(source)
    if array.ndim == 3 and array.shape[-1] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = rearrange(array, "c h w -> h w c")
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
        return _stretch(array)
    elif np.issubdtype(array.dtype, np.floating):
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise InputError("a float picture must lie in 0–1 without NaN; or pass uint8 in 0–255")
        array = np.round(array * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise InputError(
            f"a picture of dtype {array.dtype}; accepted: uint8, bool, uint16 (H, W), float in 0–1"
        )
    return Image.fromarray(np.ascontiguousarray(array))


def to_numpy(source: Any) -> np.ndarray[Any, Any]:
    """Convert an array or a tensor to a numpy array.

    Raises:
        InputError: neither of the two, or a tensor that numpy cannot represent.
    """
    if isinstance(source, Tensor):
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


def _stretch(array: np.ndarray[Any, Any]) -> Image.Image:
    """Stretch numbers (H, W) to 8-bit gray, lowest 0, highest 255; a constant is mid-gray."""
    values = array.astype(np.float64)  # float32 overflows where a float picture spans its range
    if not np.isfinite(values).all():
        raise InputError("the picture holds NaN or infinite values")
    low, high = float(values.min()), float(values.max())
    if high == low:
        return Image.new("L", (array.shape[1], array.shape[0]), 128)
    return Image.fromarray(np.round((values - low) * (255 / (high - low))).astype(np.uint8))


class Normalizer:
    """Converts RGB to a model's normalized numbers and back, on one device."""

    def __init__(
        self,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        device: torch.device | str | None = None,
    ) -> None:
        self.mean = torch.tensor(mean, device=device).view(3, 1, 1)
        self.std = torch.tensor(std, device=device).view(3, 1, 1)

    def __call__(self, rgb: Tensor) -> Tensor:
        """Normalize RGB in 0–1, (…, 3, H, W)."""
        return (rgb - self.mean) / self.std

    def colors(self, rgb: Tensor) -> Tensor:
        """Normalize colors in 0–1, (…, 3)."""
        return (rgb - self.mean.view(3)) / self.std.view(3)

    def invert(self, painting: Tensor) -> Tensor:
        """Return the RGB of a normalized painting, (…, 3, H, W); not clipped to 0–1."""
        return painting * self.std + self.mean

    def image(self, image: Image.Image, size: int) -> Tensor:
        """Resize an RGB image bicubically and normalize it, (3, size, size).

        As the official `run_inference_image` does.
        """
        small = image.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=None)
        return self.array(np.asarray(small))

    def array(self, rgb: np.ndarray[Any, Any]) -> Tensor:
        """Normalize RGB in 0–255, (H, W, 3) → (3, H, W)."""
        # Division before subtraction, both in float32: the official order of rounding.
        values = torch.from_numpy(np.array(rgb, dtype=np.float32))
        return self(rearrange(values, "h w c -> c h w") / 255.0)

    def restore(self, painting: Tensor) -> Tensor:
        """Return the RGB of a normalized painting in 0–255, float32, clipped, (…, 3, H, W)."""
        return (self.invert(painting.float().to(self.mean.device)) * 255).clamp(0, 255)


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
