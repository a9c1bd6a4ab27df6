"""Raster: TIFF images that are more than 8-bit gray or RGB, through rasterio, as 8-bit RGB.

Satellite and aerial images have many bands, deep values, and pixels without data. What Pillow makes
of them depends on how they are stored, so they are converted by a rule of our own: see `read`.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from einops import rearrange
from PIL import Image, TiffImagePlugin

from incontext.errors import InputError, first_line

Values = np.ndarray[Any, Any]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

BIG = b"MM\0+"  # Pillow cannot open it
STARTS = (b"II*\0", b"MM\0*", b"II+\0", BIG)  # TIFF and BigTIFF, in both byte orders
GEO = (33550, 33922, 34264, 34735)  # scale, tie points, transformation, keys
NODATA = 42113
PERCENTILES = (1, 99)  # of the valid values, that become 0 and 255
SAMPLE_PIXELS = 1_000_000  # evenly spread, that percentiles are taken of
WHITE = 255  # of pixels without data, as of transparent ones in other images


def is_raster(path: Path) -> bool:
    """Return whether a file is a TIFF that `read` is for.

    That is one with several bands that are not 8-bit RGB, with deep values and a georeference or a
    nodata value, or with a compression or a header that Pillow does not support.
    """
    try:
        with path.open("rb") as file:
            head = file.read(16)
            if not head.startswith(STARTS):
                return False
            if head.startswith(BIG):
                return True
            tags = TiffImagePlugin.ImageFileDirectory_v2(head[:16] if head[2] == 43 else head[:8])
            file.seek(tags.next or 0)
            tags.load(file)
    except Exception:  # Pillow reports what is damaged
        return False
    if tags.get(259, 1) not in TiffImagePlugin.COMPRESSION_INFO:
        return True
    bands, photometric = tags.get(277, 1), tags.get(262, 1)
    bits, form = tags.get(258, (1,)), tags.get(339, (1,))
    if max(bits) > 8 or max(form) > 1:
        deeper = max(bits) > 32 or (max(bits) == 8)  # signed 8-bit is read as unsigned
        return bands > 1 or deeper or NODATA in tags or any(tag in tags for tag in GEO)
    colors = bands in (3, 4) and photometric in (2, 5, 6, 8)  # RGB, CMYK, YCbCr, Lab
    gray_alpha = bands == 2 and photometric in (0, 1) and tags.get(338, (0,))[0] in (1, 2)
    return not (bands == 1 or colors or (gray_alpha and tags.get(284, 1) == 1))


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


def read(path: Path, max_pixels: int) -> Image.Image:
    """Read a TIFF as RGB, not oriented yet.

    Bands: those that the file calls red, green and blue; else the first three; of one or two the
    first, as gray. Values: 8-bit ones stay as they are; of others the 1st and the 99th percentile,
    over these bands together and valid values only, become 0 and 255 (the lowest and highest, if
    those two are the same); a constant image is mid-gray. Pixels without data (nodata, NaN, mask,
    alpha 0) are white.

    Args:
        max_pixels: larger images are refused before they are read.

    Raises:
        InputError: rasterio is missing, a damaged file, too many pixels, complex numbers.
    """
    try:
        import rasterio
    except ImportError:
        raise InputError(
            f"{path}: a TIFF of several bands, deep values or nodata needs rasterio: "
            "pip install 'incontext-seg[geo]'"
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            source = rasterio.open(path, driver="GTiff")  # no other of GDAL's many formats
        with source:
            if source.width * source.height > max_pixels:
                raise InputError(
                    f"{path}: {source.width}×{source.height} is more than {max_pixels // 10**6} "
                    "megapixels; cut it into parts first"
                )
            rgb = _to_rgb(path, source)
            orientation = int(source.tags().get("TIFFTAG_ORIENTATION", 1))
    except InputError:
        raise
    except Exception as error:  # GDAL has errors of its own
        raise InputError(
            f"{path}: damaged picture ({type(error).__name__}: {first_line(error)})"
        ) from None
    image = Image.fromarray(rgb)
    image.getexif()[0x0112] = orientation  # turned upright like all other images
    return image


def _to_rgb(path: Path, source: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return an open raster as RGB, (H, W, 3)."""
    bands, alpha = _select_bands(source)
    if any(np.issubdtype(np.dtype(source.dtypes[band - 1]), np.complexfloating) for band in bands):
        raise InputError(f"{path}: complex numbers; accepted: integers or real numbers")
    values = source.read(bands)
    eight = values.dtype == np.uint8
    if eight:
        valid_mask = np.ones(values.shape, bool)
        if alpha:
            valid_mask &= source.read(alpha) > 0
    else:
        valid_mask = source.read_masks(bands) > 0
        valid_mask &= np.isfinite(values)
    if not valid_mask.any():
        warnings.warn(f"{path}: no pixel holds data; it is shown white", stacklevel=4)
        values = np.zeros(values.shape, np.uint8)
    elif not eight:
        values = _stretch(values, valid_mask)
    values[:, ~valid_mask.any(0)] = WHITE
    rgb = np.broadcast_to(values, (3, *values.shape[1:]))
    return np.ascontiguousarray(rearrange(rgb, "c h w -> h w c"))


def _select_bands(source: Any) -> tuple[list[int], int | None]:
    """Return the numbers of the bands to show, one or three, and that of alpha."""
    names = [interpretation.name for interpretation in source.colorinterp]
    alpha = names.index("alpha") + 1 if "alpha" in names else None
    if all(name in names for name in ("red", "green", "blue")):
        return [names.index(name) + 1 for name in ("red", "green", "blue")], alpha
    numbers = [number for number in range(1, source.count + 1) if number != alpha]
    return numbers[:3] if len(numbers) >= 3 else numbers[:1], alpha


def _stretch(values: Values, valid_mask: Mask) -> Values:
    """Stretch numbers (B, H, W) to uint8, one range for all bands so that colors keep their hue."""
    # Percentiles of a sample, since sorting all of a large image takes longer than everything else.
    step = max(1, values[0].size // SAMPLE_PIXELS)
    flat, flat_mask = (x.reshape(len(values), -1)[:, ::step] for x in (values, valid_mask))
    sample = flat[flat_mask]
    low = high = 0.0
    if sample.size:
        low, high = (float(v) for v in np.percentile(sample.astype(np.float64), PERCENTILES))
    if low == high:
        valid = values[valid_mask]
        low, high = float(valid.min()), float(valid.max())
    result = np.full(values.shape, 128, np.uint8)
    for band in range(len(values) if low < high else 0):  # one at a time: these are floats
        level = np.where(valid_mask[band], values[band], low).astype(np.float64)
        result[band] = np.round(((level - low) / (high - low)).clip(0, 1) * 255)
    return result
