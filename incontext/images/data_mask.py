"""Data masks: which pixels of an image hold data; the others are answered as background.

A mask is an attribute of its image. Pillow does not copy attributes, so that an image made of
another, cropped or turned, has no mask rather than a wrong one.
"""

from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps

from incontext.images.stored import Storage

Mask = np.ndarray[Any, np.dtype[np.bool_]]


def attach(image: Image.Image, mask: Mask | None) -> None:
    """Note which pixels (H, W) of an image hold data; None: all."""
    if mask is not None and not mask.all():
        image.data_mask = mask  # type: ignore[attr-defined]


def data_mask(image: Image.Image) -> Mask | None:
    """Return which pixels (H, W) of an image hold data; None: all of them."""
    return getattr(image, "data_mask", None)


def join(first: Mask | None, second: Mask | None) -> Mask | None:
    """Return where both masks hold."""
    return second if first is None else first if second is None else first & second


def turned(mask: Mask | None, orientation: int) -> Mask | None:
    """Return a mask as an image of an EXIF orientation is turned upright."""
    if mask is None or orientation == 1:
        return mask
    image = Image.fromarray(mask.astype(np.uint8))
    image.getexif()[ExifTags.Base.Orientation] = orientation
    return np.asarray(ImageOps.exif_transpose(image)) > 0


def stored_mask(image: Image.Image, storage: Storage) -> Mask | None:
    """Return which pixels of a decoded image, not RGB yet, hold data: not NaN, infinite or nodata.

    A pixel of several channels has no data if all of them are nodata.
    """
    if image.mode == "F":
        mask = np.isfinite(storage.restore(np.asarray(image)))
    elif storage.nodata is None:
        return None
    else:
        mask = np.ones((image.height, image.width), bool)
    if storage.nodata is not None:
        lacking = storage.restore(np.asarray(image)) == storage.nodata
        mask &= ~(lacking.all(-1) if lacking.ndim == 3 else lacking)
    return mask
