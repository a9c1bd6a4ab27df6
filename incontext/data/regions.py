"""Regions of images without labels, and connected parts of masks, found by scikit-image."""

from typing import Any

import numpy as np

from incontext.data.pictures import IGNORE_INDEX, MIN_OBJECT_PIXELS, Ids
from incontext.errors import InputError

Rgb = np.ndarray[Any, np.dtype[np.uint8]]  # (H, W, 3)


def _skimage() -> tuple[Any, Any]:
    try:
        from skimage import measure, segmentation
    except ImportError:
        raise InputError(
            "region and instance episodes need scikit-image: pip install 'incontext-seg[train]'"
        ) from None
    return measure, segmentation


def find_regions(rng: np.random.Generator, image: Rgb, max_regions: int) -> Ids:
    """Find regions by graph segmentation (Felzenszwalb and Huttenlocher, IJCV 2004).

    The scale is drawn at random, so that an image gives fine regions once and coarse ones another
    time. Slivers, rims and regions over half of the image are left out; a flat image may give none.

    Returns:
        (H, W) with 1 … `max_regions`, 0 elsewhere.
    """
    _, segmentation = _skimage()
    scale = float(np.exp(rng.uniform(np.log(60), np.log(800))))
    segments = segmentation.felzenszwalb(image, scale=scale, sigma=0.8, min_size=40)
    counts = np.bincount(segments.ravel())
    fitting = np.flatnonzero((counts >= 0.01 * segments.size) & (counts <= 0.5 * segments.size))
    labels = np.zeros(segments.shape, np.uint8)
    index = 0
    for region in rng.permutation(fitting):
        inside = segments == region
        # The rims that blurred edges leave are two or three pixels wide.
        if _core(inside) < 0.3 * inside.sum():
            continue
        index += 1
        labels[inside] = index
        if index == max_regions:
            break
    return labels


def _core(mask: np.ndarray[Any, np.dtype[np.bool_]]) -> int:
    """Count the pixels of a mask whose four neighbors are in it too."""
    inner = mask[1:-1, 1:-1] & mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    return int(inner.sum())


def keep_random_part(rng: np.random.Generator, labels: Ids) -> Ids:
    """Keep one connected part of id 1, of at least `MIN_OBJECT_PIXELS` pixels.

    The other parts become background. Labels without such a part stay as they are.
    """
    measure, _ = _skimage()
    parts = measure.label(labels == 1)
    counts = np.bincount(parts.ravel())[1:]
    fitting = np.flatnonzero(counts >= MIN_OBJECT_PIXELS) + 1
    if not len(fitting):
        return labels
    part = parts == rng.choice(fitting)
    return np.where((labels == 1) & ~part, 0, labels).astype(np.uint8)


def cut_out(labels: Ids) -> Ids:
    """Return the labels of an object to paste elsewhere: ignored pixels stay behind."""
    return np.where(labels == IGNORE_INDEX, 0, labels).astype(np.uint8)
