"""Confusion counts of label maps: mean IoU, and how far it can be trusted.

Letters: Q images, K ids, C = K + 1 with the background first, R resamples.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

Counts = np.ndarray[Any, np.dtype[np.int64]]  # (Q, C, C) pixels: rows true, columns predicted
Numbers = np.ndarray[Any, np.dtype[np.float64]]

LEVEL_Z = 1.6449  # normal quantile of the two-sided 90 % intervals stated everywhere
RESAMPLES = 1000


@dataclass(frozen=True)
class Interval:
    """A figure and its 90 % interval, all in percent."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.1f} [{self.low:.1f}, {self.high:.1f}]"

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def confusion_counts(truth: Any, prediction: Any, ids: int, ignored: Any) -> Counts:
    """Count the pixels of one image by true and predicted index (0 … ids), (C, C).

    Args:
        ignored: bool mask of pixels that are left out.
    """
    classes = ids + 1
    pairs = truth[~ignored].astype(np.int64) * classes + prediction[~ignored]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def iou(counts: Any) -> Numbers:
    """Return the IoU of each id in percent, (…, C, C) → (…, K); NaN for ids not in the truth."""
    intersection = np.diagonal(counts, axis1=-2, axis2=-1)[..., 1:].astype(float)
    true_pixels = counts.sum(-1)[..., 1:]
    union = true_pixels + counts.sum(-2)[..., 1:] - intersection
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(true_pixels > 0, 100 * intersection / union, np.nan)


def miou(counts: Any) -> Numbers:
    """Return the mean IoU of the ids in the truth, summed over images first: (…, Q, C, C) → (…)."""
    values = iou(counts.sum(-3))
    valid = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(valid, values, 0).sum(-1) / valid.sum(-1)


def resamples(images: int, seed: int = 0) -> Numbers:
    """Return how often each bootstrap resample draws each image, (R, Q)."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(images, np.full(images, 1 / images), RESAMPLES).astype(float)


def interval(counts: Counts, reference: Counts | None = None) -> Interval:
    """Return the mIoU with its interval, or its gain over `reference` on the same images.

    A bootstrap over images, paired if there is a reference. With few images it is too narrow:
    deviations are widened by as much as Student's t with Q - 1 degrees of freedom is wider than
    the normal distribution.
    """
    weights = resamples(len(counts))
    value, samples = miou(counts), miou(_weighted(weights, counts))
    if reference is not None:
        value, samples = value - miou(reference), samples - miou(_weighted(weights, reference))
    lowest = 0.0 if reference is None else -100.0
    return interval_around(float(value), samples, images_with_ids(counts), lowest)


def images_with_ids(counts: Counts) -> int:
    """Return how many images show some id: the number of observations behind a figure."""
    return int((counts[:, 1:].sum((1, 2)) > 0).sum())


def interval_around(value: float, samples: Numbers, images: int, lowest: float = 0.0) -> Interval:
    """Return the interval of a figure from its values on bootstrap resamples, NaN left out.

    Args:
        images: that the figure rests on. One says nothing about others: its interval is the
            widest possible.
        lowest: smallest possible value.
    """
    if images < 2:
        return Interval(value, lowest, 100.0)
    samples = samples[~np.isnan(samples)]
    low, high = np.quantile(samples, [0.05, 0.95]) if len(samples) else (value, value)
    freedom = max(1, images - 1)
    widening = _student_quantile(freedom) / LEVEL_Z * float(np.sqrt(images / freedom))
    below, above = max(0.0, value - float(low)), max(0.0, float(high) - value)
    return Interval(
        value, max(lowest, value - widening * below), min(100.0, value + widening * above)
    )


def _weighted(weights: Numbers, counts: Counts) -> Numbers:
    """Sum counts (Q, C, C) over resampled images by their weights (R, Q): (R, 1, C, C)."""
    return np.einsum("rq,qab->rab", weights, counts.astype(float))[:, None]


def _student_quantile(freedom: int) -> float:
    """Return the quantile 0.95 of Student's t (Abramowitz and Stegun 26.7.5).

    A series, since this package does not depend on SciPy.
    """
    z = LEVEL_Z
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    if freedom == 1:  # too far from the normal distribution for the series
        return 6.314
    return z + sum(term / freedom**power for power, term in enumerate(terms, 1))
