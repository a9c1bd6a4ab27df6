"""Raster: TIFF images that are more than 8-bit gray or RGB, through rasterio, as 8-bit RGB.

Satellite and aerial images have many bands, deep values, and pixels without data. What Pillow makes
of them depends on how they are stored, so they are converted by a rule of our own: see `read`.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from einops import rearrange
from PIL import Image, TiffImagePlugin

from incontext.errors import InputError, first_line
from incontext.images.contrast import AERIAL, Mask, Values, stretch
from incontext.images.data_mask import attach, turned
from incontext.images.stored import LOSSY_COMPRESSIONS, NODATA, Storage

BIG = b"MM\0+"  # Pillow cannot open it
STARTS = (b"II*\0", b"MM\0*", b"II+\0", BIG)  # TIFF and BigTIFF, in both byte orders
GEO = (33550, 33922, 34264, 34735)  # scale, tie points, transformation, keys
IS_MASK = 4  # bit of NewSubfileType: the image is a mask of another
WHITE = 255  # of pixels without data, as of transparent ones in other images


def open_source(source: Path | bytes) -> BinaryIO:
    """Open a file, or the content of one."""
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def is_tiff(source: Path | bytes) -> bool:
    """Return whether a file, or the content of one, begins as a TIFF."""
    try:
        with open_source(source) as file:
            return file.read(4).startswith(STARTS)
    except OSError:  # reported when it is read
        return False


def is_raster(source: Path | bytes) -> bool:
    """Return whether a file, or the content of one, is a TIFF that `read` is for.

    That is one with several bands that are not 8-bit RGB, with deep values and a georeference or a
    nodata value, with a mask, or with a compression or a header that Pillow does not support.
    """
    if beyond_pillow(source):
        return True
    try:
        tags, has_mask = _read_tags(source)
    except Exception:  # Pillow reports what is damaged
        return False
    if tags is None:
        return False
    bands, photometric = tags.get(277, 1), tags.get(262, 1)
    bits, form = tags.get(258, (1,)), tags.get(339, (1,))
    if max(bits) > 8 or max(form) > 1:
        deeper = max(bits) > 32 or (max(bits) in (8, 16) and max(form) == 3)
        deeper |= max(bits) == 8  # signed 8-bit is read as unsigned
        return bands > 1 or deeper or NODATA in tags or any(tag in tags for tag in GEO) or has_mask
    colors = bands in (3, 4) and photometric in (2, 5, 6, 8)  # RGB, CMYK, YCbCr, Lab
    gray_alpha = bands == 2 and photometric in (0, 1) and tags.get(338, (0,))[0] in (1, 2)
    simple = bands == 1 or colors or (gray_alpha and tags.get(284, 1) == 1)
    return has_mask or not simple


def beyond_pillow(source: Path | bytes) -> bool:
    """Return whether a file is a TIFF with a header or a compression that Pillow lacks."""
    try:
        with open_source(source) as file:
            if file.read(4).startswith(BIG):
                return True
        tags, _ = _read_tags(source)
    except Exception:  # Pillow reports what is damaged
        return False
    return tags is not None and tags.get(259, 1) not in TiffImagePlugin.COMPRESSION_INFO


def _read_tags(source: Path | bytes) -> tuple[Any, bool]:
    """Return the tags of a TIFF's first image, None of other files, and whether a mask follows."""
    with open_source(source) as file:
        head = file.read(16)
        if not head.startswith(STARTS) or head.startswith(BIG):
            return None, False
        head = head[:16] if head[2] == 43 else head[:8]
        tags = TiffImagePlugin.ImageFileDirectory_v2(head)
        file.seek(tags.next or 0)
        tags.load(file)
        next_tags = TiffImagePlugin.ImageFileDirectory_v2(head)
        if tags.next:
            file.seek(tags.next)
            next_tags.load(file)
    return tags, bool(next_tags.get(254, 0) & IS_MASK)


def warn_of_alpha(image: Image.Image, name: str) -> None:
    """Warn if the alpha of a georeferenced image looks like a band of a spectrum.

    GDAL marks the fourth of four 8-bit bands as alpha by default.
    """
    tags = getattr(image, "tag_v2", {})
    if image.mode != "RGBA" or not any(tag in tags for tag in GEO):
        return
    alpha = np.asarray(image.getchannel("A"))
    if ((alpha > 0) & (alpha < 255)).mean() > 0.5:
        warnings.warn(
            f"{name}: band 4 is marked as alpha, and so is laid over white; if it is another band, "
            "such as near infrared, mark it so: rio edit-info --colorinterp 4=undefined",
            stacklevel=3,
        )


def read(source: Path | bytes, name: str, max_pixels: int) -> Image.Image:
    """Read a TIFF as RGB, not oriented yet, with a data mask that is upright.

    Bands: those that the file calls red, green and blue; else the first three; of one or two the
    first, as gray. Values: 8-bit ones stay as they are; of others the 1st and the 99th percentile,
    over these bands together and valid values only, become 0 and 255, see `stretch`. Pixels without
    data (nodata, NaN, mask, alpha 0) are white; 8-bit nodata keeps its color.

    Args:
        source: a file, or the content of one.
        name: of the file, for messages.
        max_pixels: larger images are refused before they are read.

    Raises:
        InputError: rasterio is missing, a damaged file, too many pixels, complex numbers.
    """
    with _opened(source, name, max_pixels) as raster:
        rgb, valid_mask = _to_rgb(name, raster)
    image, turn = Image.fromarray(rgb), orientation(source)
    image.getexif()[0x0112] = turn  # turned upright like all other images
    attach(image, turned(valid_mask, turn))
    return image


def read_stored(source: Path | bytes, name: str, max_pixels: int) -> tuple[Values, Storage]:
    """Read the values of a TIFF as they are stored: (H, W), or (H, W, B) of several bands.

    Raises:
        InputError: see `read`.
    """
    with _opened(source, name, max_pixels) as raster:
        values = raster.read(1) if raster.count == 1 else raster.read()
        compression = raster.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION", "")
        lossy = compression if compression in (*LOSSY_COMPRESSIONS.values(), "WEBP", "JXL") else ""
        storage = Storage(
            lossy or ("JPEG" if "JPEG" in compression else ""), orientation(source) != 1,
            nodata=raster.nodata,
        )  # fmt: skip
    return values if values.ndim == 2 else rearrange(values, "b h w -> h w b"), storage


def orientation(source: Path | bytes) -> int:
    """Return the EXIF orientation, which GDAL does not report; 1 where Pillow reads no tags.

    A georeference places the pixels as they are stored, and so do all programs that read it.
    """
    try:
        tags, _ = _read_tags(source)
    except Exception:  # GDAL has read the file, so that only this is lost
        return 1
    counts = tags is not None and not any(tag in tags for tag in GEO)
    return int(tags.get(274, 1)) if counts else 1


@contextmanager
def _opened(source: Path | bytes, name: str, max_pixels: int) -> Iterator[Any]:
    """Open a TIFF with rasterio; its errors become one `InputError`."""
    try:
        import rasterio
    except ImportError:
        raise InputError(
            f"{name}: a TIFF of several bands, deep values, nodata or a mask needs rasterio: "
            "pip install 'incontext-seg[geo]'"
        ) from None
    try:
        with ExitStack() as stack:
            if isinstance(source, bytes):
                source = stack.enter_context(rasterio.MemoryFile(source)).name
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
                # No other of GDAL's many formats.
                raster = stack.enter_context(rasterio.open(source, driver="GTiff"))
            if raster.width * raster.height > max_pixels:
                raise InputError(
                    f"{name}: {raster.width}×{raster.height} is more than {max_pixels // 10**6} "
                    "megapixels; cut it into parts first"
                )
            yield raster
    except InputError:
        raise
    except Exception as error:  # GDAL has errors of its own
        raise InputError(
            f"{name}: damaged picture ({type(error).__name__}: {first_line(error)})"
        ) from None


def _to_rgb(name: str, source: Any) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], Mask]:
    """Return an open raster as RGB, (H, W, 3), and where it holds data, (H, W)."""
    bands, alpha = _select_bands(source)
    if any(np.issubdtype(np.dtype(source.dtypes[band - 1]), np.complexfloating) for band in bands):
        raise InputError(f"{name}: complex numbers; accepted: integers or real numbers")
    values = source.read(bands)
    eight = values.dtype == np.uint8
    valid_mask = (source.read_masks(bands) > 0) & np.isfinite(values)
    if alpha:
        valid_mask &= source.read(alpha) > 0
    white = ~valid_mask.any(0)
    if eight and not alpha and source.nodata is not None:
        white[:] = False  # black is nodata in many mosaics, and shadows are black
    if not valid_mask.any():
        warnings.warn(f"{name}: no pixel holds data; it is shown white", stacklevel=5)
        values = np.zeros(values.shape, np.uint8)
        white[:] = True
    elif not eight:
        values = stretch(values, valid_mask, AERIAL)
    values[:, white] = WHITE
    rgb = np.broadcast_to(values, (3, *values.shape[1:]))
    return np.ascontiguousarray(rearrange(rgb, "c h w -> h w c")), valid_mask.any(0)


def _select_bands(source: Any) -> tuple[list[int], int | None]:
    """Return the numbers of the bands to show, one or three, and that of alpha."""
    names = [interpretation.name for interpretation in source.colorinterp]
    alpha = names.index("alpha") + 1 if "alpha" in names else None
    if all(name in names for name in ("red", "green", "blue")):
        return [names.index(name) + 1 for name in ("red", "green", "blue")], alpha
    numbers = [number for number in range(1, source.count + 1) if number != alpha]
    return numbers[:3] if len(numbers) >= 3 else numbers[:1], alpha
