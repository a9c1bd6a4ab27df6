"""Image files: opened and decoded by Pillow, under one limit, with a sentence for what is wrong."""

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError

from incontext.errors import InputError
from incontext.images import raster
from incontext.images.stored import Storage

MAX_PIXELS = 200_000_000
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # and all else that Pillow reads

# Pillow takes a PNG for damaged if one of its texts is longer than a megabyte. Programs keep whole
# projects there; what all texts together may take stays at 64 megabytes.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY

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
    if raster.is_raster(path):
        return raster.orientation(path) in (0, 1)
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
    return open_stored(Path(path), str(path))[0]


def open_stored(source: Path | bytes, name: str) -> tuple[Image.Image, Storage]:
    """Open and decode an image file, or the content of one; tell how it stores its values.

    Raises:
        InputError: see `open_file`; the message begins with `name`.
    """
    if isinstance(source, Path) and not os.path.isfile(source):
        raise InputError(f"{name}: {_no_file(source)}")
    try:
        with raster.open_source(source) as file:
            image = open_header(file, name)
            # Counted before decoding, since counting leaves the first frame.
            frames = getattr(image, "n_frames", 1)
            storage = decode(image, name)
    except InputError:
        raise
    except UnidentifiedImageError:
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        problem = "not a picture" if size else "an empty file"
        raise InputError(f"{name}: {problem}; accepted: {', '.join(FORMATS)}") from None
    except PermissionError:
        raise InputError(f"{name}: no permission to read it") from None
    except Exception as error:  # decoders raise nearly anything on damaged data
        raise InputError(f"{name}: {_damage(error)}") from None
    # MPO: a photo with its preview or depth map behind it, as many phones write.
    if frames > 1 and image.format != "MPO":
        warnings.warn(f"{name}: {frames} frames; the first one is used", stacklevel=3)
    return image, storage


def _no_file(path: Path) -> str:
    if not os.path.isdir(path):
        return "a link to a file that is gone" if os.path.islink(path) else "no such file"
    return "a folder" if os.access(path, os.R_OK | os.X_OK) else "no permission to list this folder"


def decode(image: Image.Image, name: str) -> Storage:
    """Decode an image that was opened but not read yet; tell how its file stores values.

    Raises:
        InputError: damaged or closed; the message begins with `name`.
    """
    try:
        storage = Storage.of(image)
        image.load()
    except Exception as error:  # see open_file
        raise InputError(f"{name}: {_damage(error)}") from None
    return storage


def _damage(error: Exception) -> str:
    return f"damaged picture ({type(error).__name__}: {error})"
