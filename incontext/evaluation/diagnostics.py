"""Findings: what trials and pictures say of single examples and ids."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.nn.functional as F

from incontext.evaluation.confusion import Counts, miou
from incontext.evaluation.episodes import Trial
from incontext.evaluation.labelled_set import Pool, shown_by

BAD = 4.0  # robust deviations: twice as an example, once as a query
HARM = 2.0  # points of mIoU that an example must cost to be named
CONFUSED = 0.15  # share of an id's pixels painted as another
ALIKE = 6.0  # mean difference of two small gray pictures, 0–255, below which they are the same
THUMB = 24  # pixels
SAME = 0.8  # share of labelled pixels that two masks of one picture agree on


@dataclass(frozen=True)
class Effect:
    """One example: what it does to others, and how others see it."""

    source: str
    gain: float  # points of mIoU that others gain or lose by it, against the usual example
    agreement: float  # mIoU of its own labels with what the others paint on it
    usual: float  # the same, for the example in the middle
    why: str = ""  # "mask" or "unlike" where it hurts


def asked_for(pool: Pool, trials: list[Trial], counts: Counts) -> Counts:
    """Counts with the ids that no example of the trial shows taken for background: an example can
    not be blamed for what it does not show."""
    shows, counts = shown_by(pool), counts.copy()
    for number, trial in enumerate(trials):
        missing = 1 + np.flatnonzero(~shows[list(trial.shown)].any(0))
        counts[number, 0] += counts[number, missing].sum(0)
        counts[number, missing] = 0
    return counts


def effects_of(pool: Pool, trials: list[Trial], counts: Counts) -> tuple[list[Effect], list[int]]:
    """What each example does, worst first, and their numbers in that order.

    A trial's mIoU is taken as the query's own level plus the mean effect of the examples shown
    (least squares, lightly damped). A bad mask shows twice: pictures asked with it come out worse,
    and it disagrees with what all the others paint on it.
    """
    values, size = miou(counts[:, None]), len(pool)
    known = [n for n, v in enumerate(values) if not np.isnan(v)]
    rows = np.zeros((len(known), 2 * size))
    for row, n in enumerate(known):
        rows[row, trials[n].query] = 1
        rows[row, [size + i for i in trials[n].shown]] = 1 / len(trials[n].shown)
    damp = np.diag([1e-3] * size + [0.5] * size)
    solved = np.linalg.solve(rows.T @ rows + damp, rows.T @ values[known])
    level, effect = solved[:size], solved[size:]
    examples = pool.showing()
    effect = effect - np.median(effect[examples])
    asks = [[values[n] for n in known if trials[n].query == i] for i in range(size)]
    agreement = np.array([np.mean(asked) if asked else np.nan for asked in asks])
    shown, asked = (_deviation(x, x[examples]) for x in (effect, level))
    odd = np.minimum(shown, 0) * 2 + np.minimum(asked, 0)
    hurts = (effect < -HARM) & (odd < -BAD)
    # Those that hurt first; pictures without an object are asked only.
    rank = np.where(hurts, odd - 1e6, effect)
    order = [i for i in np.argsort(rank, kind="stable").tolist() if i in set(examples)]
    told = [agreement[i] for i in examples if asks[i]]
    usual = float(np.median(told)) if told else float("nan")
    found = []
    for i in order:
        why = ("mask" if asked[i] < -1 else "unlike") if hurts[i] else ""
        found.append(Effect(pool.sources[i], float(effect[i]), float(agreement[i]), usual, why))
    return found, order


def _deviation(values: Any, among: Any) -> Any:
    """In units of the usual deviation of some from their median, taken as 3 points at least."""
    middle = np.median(among)
    spread = 1.4826 * np.median(np.abs(among - middle))  # of a normal distribution: its σ
    return (values - middle) / max(3.0, float(spread))


def twins(pool: Pool) -> list[tuple[int, int, bool]]:
    """Pictures that are nearly the same, by number, and whether their labels are too."""
    gray = pool.images.float().mean(1, keepdim=True)
    thumbs = F.adaptive_avg_pool2d(gray, THUMB).flatten(1).numpy()
    found = []
    for i in range(len(pool)):
        gaps = np.abs(thumbs[i + 1 :] - thumbs[i]).mean(1)
        for j in (i + 1 + np.flatnonzero(gaps < ALIKE)).tolist():
            one, other = pool.labels[i], pool.labels[j]
            either = (one > 0) | (other > 0)
            same = float((one == other)[either].float().mean()) if either.any() else 1.0
            found.append((i, j, same > SAME))
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
