"""Stored values: what Pillow changes or forgets when it decodes a file, so that masks get it back.

Pillow shows images: samples of 2 and 4 bits are spread over 0–255, white-is-zero is turned
around, 16 bits of a color are cut to 8, signed bytes become unsigned; of some compressed TIFFs it
swaps the bytes of a number. The values of a mask are ids,
and count as they are stored, as tifffile and libpng give them.
"""

import sys
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin

Values = np.ndarray[Any, Any]

LOSSY_FORMATS = ("JPEG", "MPO", "AVIF", "HEIF", "JPEG2000", "JXL")  # or cannot be told from lossy
LOSSY_COMPRESSIONS = {
    6: "JPEG", 7: "JPEG", 33003: "JPEG 2000", 33004: "JPEG 2000", 33005: "JPEG 2000",
    34712: "JPEG 2000", 34892: "JPEG", 50001: "WebP", 50002: "JPEG XL",
}  # fmt: skip
SAMPLES = {1: "u", 2: "i"}  # of TIFF's SampleFormat
NODATA = 42113  # GDAL's tag


@dataclass(frozen=True)
class Storage:
    """How a file stores its numbers.

    Attributes:
        lossy: name of the encoding if it does not keep values exactly, else "".
        turned: the image is to be turned when it is shown (EXIF orientation).
        inverted: 0 is white.
        factor: what Pillow multiplies samples with, (numerator, denominator).
        sample: dtype that the samples have and Pillow's array has not.
        swapped: dtype of samples whose bytes Pillow puts in the wrong order.
        deep_colors: more than 8 bits a channel, of which Pillow keeps 8.
        nodata: value that means "no data".
    """

    lossy: str = ""
    turned: bool = False
    inverted: bool = False
    factor: tuple[int, int] = (1, 1)
    sample: str = ""
    swapped: str = ""
    deep_colors: bool = False
    nodata: float | None = None

    @classmethod
    def of(cls, image: Image.Image) -> "Storage":
        """Look at an image, best before it is decoded: later most of it is forgotten."""
        # EXIF comes last: to look for it in a PNG decodes the PNG.
        lossy = (image.format or "") if image.format in LOSSY_FORMATS else ""
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            storage = cls._of_tiff(image)
        elif not isinstance(image, ImageFile.ImageFile):
            storage = cls(lossy)
        elif image.format == "WEBP":
            storage = cls("this WebP" if _is_lossy_webp(image) else "")
        elif image.format == "PPM":
            storage = cls._of_ppm(image)
        else:
            raw = _decoder(image)[1][:1]
            factor = {"L;2": (85, 1), "L;4": (17, 1)}.get(str(*raw), (1, 1))
            deep = ";16" in str(*raw) and image.mode[0] != "I"
            storage = cls(lossy, factor=factor, deep_colors=deep)
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return replace(storage, turned=turned)

    @classmethod
    def _of_ppm(cls, image: ImageFile.ImageFile) -> "Storage":
        decoder, arguments = _decoder(image)
        if decoder not in ("ppm", "ppm_plain") or len(arguments) < 2:  # nothing to be undone
            return cls()
        top, limit = 65_535 if image.mode == "I" else 255, int(arguments[1])
        return cls(factor=(top, limit), deep_colors=limit > 255 and image.mode != "I")

    @classmethod
    def _of_tiff(cls, image: TiffImagePlugin.TiffImageFile) -> "Storage":
        tags = image.tag_v2
        bits, form = max(tags.get(258, (1,))), max(tags.get(339, (1,)))
        single = tags.get(277, 1) == 1
        inverted = tags.get(262) == 0 and image.mode in ("1", "L")  # deeper ones Pillow leaves
        sample = f"{SAMPLES[form]}{bits // 8}" if form in SAMPLES and bits >= 8 else ""
        return cls(
            LOSSY_COMPRESSIONS.get(tags.get(259, 1), ""), False, inverted,
            {2: (85, 1), 4: (17, 1)}.get(bits, (1, 1)) if image.mode == "L" else (1, 1),
            sample if single and image.mode in ("L", "I") else "",
            _swapped(image), bits > 8 and not single, parse_nodata(tags.get(NODATA)),
        )  # fmt: skip

    def restore(self, values: Values) -> Values:
        """Return the values as they are stored, of what Pillow decoded."""
        if self.swapped:
            return values.astype(self.swapped).byteswap()
        if self.inverted:
            values = ~values if values.dtype == bool else 255 - values
        above, below = self.factor
        if above != below:
            values = np.round(values * (below / above)).astype(values.dtype)
        if self.sample and values.dtype != np.dtype(self.sample):
            wide = np.dtype(self.sample).itemsize == values.dtype.itemsize
            # Pillow widens signed 16 bits itself.
            values = np.ascontiguousarray(values).view(self.sample) if wide else values
        return values


def parse_nodata(text: Any) -> float | None:
    """Return GDAL's nodata value; None if there is none, or no number."""
    try:
        return float(str(text).strip("\0 ")) if text is not None else None
    except ValueError:
        return None


def _decoder(image: ImageFile.ImageFile) -> tuple[str, tuple[Any, ...]]:
    """Return the decoder that Pillow will use and its arguments; nothing once it has decoded."""
    if not image.tile:
        return "", ()
    decoder, _, _, arguments = image.tile[0]
    return decoder, arguments if isinstance(arguments, tuple) else (arguments,)


def _swapped(image: ImageFile.ImageFile) -> str:
    """Return the dtype of samples that libtiff has put in order and Pillow turns around again."""
    decoder, arguments = _decoder(image)
    if decoder != "libtiff" or sys.byteorder == "big":
        return ""
    return {"I;16BS": "i2", "I;32BS": "i4", "F;32BF": "f4"}.get(str(arguments[0]), "")


def _is_lossy_webp(image: ImageFile.ImageFile) -> bool:
    """Return whether the first frame is of the lossy kind; False once it is decoded."""
    file = image.fp
    if file is None or file.closed:
        return False
    here = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(here)
    at = 12 if data.startswith(b"RIFF") else len(data)
    while at + 8 <= len(data):
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if kind in (b"VP8 ", b"VP8L"):
            return kind == b"VP8 "
        at += 8 + (16 if kind == b"ANMF" else size + size % 2)  # a frame begins with its place
    return False
