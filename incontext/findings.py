"""Findings: what trials and pictures say of single examples and ids."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.nn.functional as F

from incontext.confusion import Counts, miou
from incontext.pool import Pool
from incontext.trial import Trial

BAD = 4.0  # robust deviations: twice as an example, once as a query
HARM = 2.0  # points of mIoU that an example must cost to be named
CONFUSED = 0.15  # share of an id's pixels painted as another
ALIKE = 6.0  # mean difference of two small gray pictures, 0–255, below which they are the same
THUMB = 24  # pixels


@dataclass(frozen=True)
class Effect:
    """One example: what it does to others, and how others see it."""

    source: str
    gain: float  # points of mIoU that others gain or lose by it, against the usual example
    agreement: float  # mIoU of its own labels with what the others paint on it
    usual: float  # the same, for the example in the middle
    why: str = ""  # "mask" or "unlike" where it hurts


def scores(counts: Counts) -> Any:
    """mIoU of each trial alone, (T,); NaN where the truth shows no id."""
    return miou(counts[:, None])


def effects_of(pool: Pool, trials: list[Trial], counts: Counts) -> tuple[list[Effect], list[int]]:
    """What each example does, worst first, and their numbers in that order.

    A trial's mIoU is taken as the query's own level plus the mean effect of the examples shown
    (least squares, lightly damped). A bad mask shows twice: pictures asked with it come out worse,
    and it disagrees with what all the others paint on it.
    """
    values, size = scores(counts), len(pool)
    known = [n for n, v in enumerate(values) if not np.isnan(v)]
    rows = np.zeros((len(known), 2 * size))
    for row, n in enumerate(known):
        rows[row, trials[n].query] = 1
        rows[row, [size + i for i in trials[n].shown]] = 1 / len(trials[n].shown)
    damp = np.diag([1e-3] * size + [0.5] * size)
    solved = np.linalg.solve(rows.T @ rows + damp, rows.T @ values[known])
    level, effect = solved[:size], solved[size:] - np.median(solved[size:])
    agreement = np.array([
        np.nanmean([values[n] for n in known if trials[n].query == i] or [np.nan])
        for i in range(size)
    ])  # fmt: skip
    shown, asked = _deviation(effect), _deviation(level)
    odd = np.minimum(shown, 0) * 2 + np.minimum(asked, 0)
    order = np.argsort(odd, kind="stable").tolist()
    usual = float(np.nanmedian(agreement))
    found = []
    for i in order:
        hurts = effect[i] < -HARM and odd[i] < -BAD
        why = ("mask" if asked[i] < -1 else "unlike") if hurts else ""
        found.append(Effect(pool.sources[i], float(effect[i]), float(agreement[i]), usual, why))
    return found, order


def _deviation(values: Any) -> Any:
    """In units of the usual deviation from the median, which is taken as 3 points at least."""
    middle = np.median(values)
    spread = 1.4826 * np.median(np.abs(values - middle))  # of a normal distribution: its σ
    return (values - middle) / max(3.0, float(spread))


def twins(pool: Pool) -> list[tuple[int, int, bool]]:
    """Pictures that are nearly the same, by number, and whether their labels are too."""
    gray = pool.images.float().mean(1, keepdim=True)
    thumbs = F.adaptive_avg_pool2d(gray, THUMB).flatten(1).numpy()
    found = []
    for i in range(len(pool)):
        gaps = np.abs(thumbs[i + 1 :] - thumbs[i]).mean(1)
        for j in (i + 1 + np.flatnonzero(gaps < ALIKE)).tolist():
            same = float((pool.labels[i] == pool.labels[j]).float().mean())
            found.append((i, j, same > 0.95))
    return found


def confused(pool: Pool, total: Any) -> list[tuple[int, int, float]]:
    """Ids whose pixels are often painted as another id: (id, taken for, share), worst first."""
    shares = total / np.maximum(total.sum(1, keepdims=True), 1)
    pairs = [
        (pool.ids[a - 1], pool.ids[b - 1], float(shares[a, b]))
        for a in range(1, len(total))
        for b in range(1, len(total))
        if a != b and shares[a, b] > CONFUSED
    ]
    return sorted(pairs, key=lambda pair: -pair[2])


def small_ids(pool: Pool, patch: int) -> list[tuple[int, float, float]]:
    """Ids whose object is usually smaller than a token at the model's size: (id, pixels there,
    pixels in the picture itself, which a tile of the model's size would show)."""
    found = []
    pixels = np.array([width * height for width, height in pool.sizes])
    for column, index in enumerate(pool.ids):
        there = pool.areas[:, column] > 0
        own = pool.areas[there, column]
        seen = own * pool.size**2 / pixels[there]
        if np.median(seen) < patch:
            found.append((index, float(np.median(seen)), float(np.median(own))))
    return found
