"""Regions of pictures without labels, and the parts that a mask falls into: scikit-image."""

from typing import Any

import numpy as np

from incontext.data.pictures import IGNORE, SMALLEST, Ids
from incontext.errors import InputError

Picture = np.ndarray[Any, np.dtype[np.uint8]]  # (H, W, 3)


def _skimage() -> tuple[Any, Any]:
    try:
        from skimage import measure, segmentation
    except ImportError:
        raise InputError(
            "region and instance episodes need scikit-image: pip install 'incontext-seg[train]'"
        ) from None
    return measure, segmentation


def regions(rng: np.random.Generator, picture: Picture, most: int) -> Ids:
    """Up to `most` regions that a graph segmentation finds: (H, W), 1 … most, 0 elsewhere.

    The scale is drawn at random, so that a picture gives fine regions once and coarse ones
    another time (Felzenszwalb and Huttenlocher, IJCV 2004). Slivers, rims and regions over half of
    the picture are not chosen; a flat picture may give none.
    """
    _, segmentation = _skimage()
    scale = float(np.exp(rng.uniform(np.log(60), np.log(800))))
    found = segmentation.felzenszwalb(picture, scale=scale, sigma=0.8, min_size=40)
    counts = np.bincount(found.ravel())
    fitting = np.flatnonzero((counts >= 0.01 * found.size) & (counts <= 0.5 * found.size))
    labels = np.zeros(found.shape, np.uint8)
    index = 0
    for region in rng.permutation(fitting):
        inside = found == region
        # The rims that blurred edges leave are two or three pixels wide.
        if _core(inside) < 0.3 * inside.sum():
            continue
        index += 1
        labels[inside] = index
        if index == most:
            break
    return labels


def _core(mask: np.ndarray[Any, np.dtype[np.bool_]]) -> int:
    """Pixels of a mask whose four neighbors are in it too."""
    inner = mask[1:-1, 1:-1] & mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    return int(inner.sum())


def one_part(rng: np.random.Generator, labels: Ids) -> Ids:
    """Labels with a single connected part of id 1 left, of at least `SMALLEST` pixels.

    The rest of id 1 becomes background; unchanged where no part is large enough.
    """
    measure, _ = _skimage()
    parts = measure.label(labels == 1)
    counts = np.bincount(parts.ravel())[1:]
    fitting = np.flatnonzero(counts >= SMALLEST) + 1
    if not len(fitting):
        return labels
    kept = parts == rng.choice(fitting)
    return np.where((labels == 1) & ~kept, 0, labels).astype(np.uint8)


def cut_out(labels: Ids) -> Ids:
    """Labels of an object to be pasted elsewhere: what is ignored here stays behind."""
    return np.where(labels == IGNORE, 0, labels).astype(np.uint8)
