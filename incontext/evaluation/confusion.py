"""Confusion counts of label maps: mean IoU, and how far it can be trusted.

Letters: Q pictures, K ids, C = K + 1 with the background first, R resamples.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

Counts = np.ndarray[Any, np.dtype[np.int64]]  # (Q, C, C), rows true, columns found; pixels
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


def count(truth: Any, found: Any, ids: int, ignored: Any) -> Counts:
    """Pixels by true and found index (0 … ids) of one picture: (C, C); `ignored` ones left out."""
    classes = ids + 1
    pairs = truth[~ignored].astype(np.int64) * classes + found[~ignored]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def iou(counts: Any) -> Numbers:
    """IoU of each id, in percent: (…, C, C) → (…, K); NaN where the truth does not show it."""
    both = np.diagonal(counts, axis1=-2, axis2=-1)[..., 1:].astype(float)
    true = counts.sum(-1)[..., 1:]
    either = true + counts.sum(-2)[..., 1:] - both
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(true > 0, 100 * both / either, np.nan)


def miou(counts: Any) -> Numbers:
    """Mean over the ids that the truth shows: (…, Q, C, C), summed over pictures → (…)."""
    values = iou(counts.sum(-3))
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(there, values, 0).sum(-1) / there.sum(-1)


def resamples(pictures: int, seed: int = 0) -> Numbers:
    """How often each picture is drawn in each bootstrap resample: (R, Q)."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(pictures, np.full(pictures, 1 / pictures), RESAMPLES).astype(float)


def interval(counts: Counts, beside: Counts | None = None) -> Interval:
    """mIoU with its interval; with `beside` (same pictures), how much higher than there.

    A bootstrap over pictures, in pairs where there are two. With few pictures it is too narrow;
    deviations are widened as Student's t with Q - 1 degrees of freedom is wider than the normal
    distribution.
    """
    weights = resamples(len(counts))
    value, drawn = miou(counts), miou(_weighted(weights, counts))
    if beside is not None:
        value, drawn = value - miou(beside), drawn - miou(_weighted(weights, beside))
    lowest = 0.0 if beside is None else -100.0
    return around(float(value), drawn, showing(counts), lowest)


def showing(counts: Counts) -> int:
    """Pictures that show some id: those that a figure rests on."""
    return int((counts[:, 1:].sum((1, 2)) > 0).sum())


def around(value: float, drawn: Numbers, pictures: int, lowest: float = 0.0) -> Interval:
    """The interval that resamples leave, for a figure that so many pictures gave.

    One picture says nothing of others: its interval is the widest there is.
    """
    if pictures < 2:
        return Interval(value, lowest, 100.0)
    drawn = drawn[~np.isnan(drawn)]
    low, high = np.quantile(drawn, [0.05, 0.95]) if len(drawn) else (value, value)
    freedom = max(1, pictures - 1)
    wide = _student(freedom) / LEVEL_Z * float(np.sqrt(pictures / freedom))
    below, above = max(0.0, value - float(low)), max(0.0, float(high) - value)
    return Interval(value, max(lowest, value - wide * below), min(100.0, value + wide * above))


def _weighted(weights: Numbers, counts: Counts) -> Numbers:
    """(R, Q) and (Q, C, C) → (R, 1, C, C): sums over the resampled pictures."""
    return np.einsum("rq,qab->rab", weights, counts.astype(float))[:, None]


def _student(freedom: int) -> float:
    """Quantile 0.95 of Student's t (Abramowitz and Stegun 26.7.5)."""
    z = LEVEL_Z
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    if freedom == 1:  # too far from the normal distribution for the series
        return 6.314
    return z + sum(term / freedom**power for power, term in enumerate(terms, 1))
