"""Regions of pictures without labels, and the parts that a mask falls into: scikit-image."""

from typing import Any

import numpy as np

from incontext.errors import InputError
from incontext.pictures import IGNORE, SMALLEST, Ids

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
    another time (Felzenszwalb and Huttenlocher, IJCV 2004). Slivers and regions over half of the
    picture are not chosen; a flat picture may give none.
    """
    _, segmentation = _skimage()
    scale = float(np.exp(rng.uniform(np.log(60), np.log(800))))
    found = segmentation.felzenszwalb(picture, scale=scale, sigma=0.8, min_size=40)
    counts = np.bincount(found.ravel())
    fitting = np.flatnonzero((counts >= 0.01 * found.size) & (counts <= 0.5 * found.size))
    labels = np.zeros(found.shape, np.uint8)
    for index, region in enumerate(rng.permutation(fitting)[:most], 1):
        labels[found == region] = index
    return labels


def one_part(rng: np.random.Generator, labels: Ids) -> Ids:
    """Labels with a single connected part of id 1 left, of at least `SMALLEST` pixels.

    The rest of id 1 becomes background; unchanged where there is but one part.
    """
    measure, _ = _skimage()
    parts = measure.label(labels == 1)
    counts = np.bincount(parts.ravel())[1:]
    fitting = np.flatnonzero(counts >= SMALLEST) + 1
    if len(fitting) < 2:
        return labels
    kept = parts == rng.choice(fitting)
    return np.where((labels == 1) & ~kept, 0, labels).astype(np.uint8)


def cut_out(labels: Ids) -> Ids:
    """Labels of an object to be pasted elsewhere: what is ignored here stays behind."""
    return np.where(labels == IGNORE, 0, labels).astype(np.uint8)
