"""Doctor: what a user's own examples are worth, before ten thousand pictures are segmented.

Every example is asked for by the others (leave one out). From the trials: how well new pictures
will come out with 1, 2, 4 … examples; which examples hurt; which ids are taken for each other.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from incontext.confusion import Counts, Interval, around, interval, iou, miou, resamples
from incontext.errors import InputError
from incontext.pool import Pool
from incontext.predictor import Predictor
from incontext.trial import Trial, Trials

FEWEST = 3  # examples
MOST = 64  # examples looked at; more are sampled
SINGLES = 15  # examples that each picture is asked for with alone
SUBSETS = 3  # drawn for each picture and each number of examples
BAD = 3.0  # robust deviations from the other examples
HARM = 2.0  # points of mIoU that an example must cost to be called bad
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
    bad: bool


@dataclass(frozen=True)
class Diagnosis:
    """What `examine` found; figures are mIoU in percent at the model's size."""

    pool: Pool = field(repr=False)
    looked_at: int
    given: int
    curve: dict[int, Interval]  # examples → predicted mIoU on new pictures
    classes: dict[int, float]  # id → IoU with all examples
    effects: list[Effect]
    twins: list[tuple[str, str, bool]]  # two names, and whether their labels agree
    confused: list[tuple[int, int, float]]  # id, what it is taken for (0: background), share
    small: list[tuple[int, float, float]]  # id, its median pixels at the model's size, in a tile
    best: tuple[str, ...]  # the subset proposed
    best_gain: Interval  # against all examples
    order: tuple[int, ...] = ()  # numbers of the examples, worst first

    @property
    def bad(self) -> list[Effect]:
        """Examples that hurt, worst first."""
        return [e for e in self.effects if e.bad]


def examine(
    predictor: Predictor,
    pool: Pool,
    *,
    kind: str = "semantic",
    seed: int = 0,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Diagnosis:
    """Leave-one-out trials over a pool of examples, and what follows from them.

    Args:
        kind: see `Predictor.prompt`.
        tell: hears how many of how many trials are done.

    Raises:
        InputError: fewer than three examples that show an object.
    """
    given = len(pool)
    usable = pool.showing()
    if len(usable) < FEWEST:
        raise InputError(
            f"{len(usable)} examples show an object of a pixel or more at {pool.size} × "
            f"{pool.size}; the doctor needs {FEWEST} or more"
        )
    rng = np.random.default_rng(seed)
    if len(usable) > MOST:
        usable = sorted(rng.choice(usable, MOST, replace=False).tolist())
    pool = pool.subset(usable)
    trials = schedule(len(pool), rng)
    lab, done = Trials(predictor, pool, kind=kind), 0

    def one(more: int) -> None:
        nonlocal done
        done += more
        tell(done, len(trials))

    counts = lab.run(trials, one)
    effects, order = effects_of(pool, trials, counts)
    best, gain = best_subset(lab, trials, counts, order)
    whole = [n for n, t in enumerate(trials) if len(t.shown) == len(pool) - 1]
    total = counts[whole].sum(0)
    values = iou(total)
    return Diagnosis(
        pool, len(pool), given, curve(trials, counts, len(pool)),
        {i: float(v) for i, v in zip(pool.ids, values, strict=True) if not np.isnan(v)},
        effects, twins(pool), confused(pool, total), small_ids(pool),
        tuple(pool.sources[i] for i in best), gain, tuple(order),
    )  # fmt: skip


def schedule(count: int, rng: np.random.Generator) -> list[Trial]:
    """Each picture asked with single others, with random sets of 2, 4, 8 …, and with all others."""
    trials = []
    for query in range(count):
        others = np.array([i for i in range(count) if i != query])
        for one in rng.permutation(others)[:SINGLES]:
            trials.append(Trial(query, (int(one),)))
        size = 2
        while size < count - 1:
            for _ in range(SUBSETS):
                shown = rng.choice(others, size, replace=False)
                trials.append(Trial(query, tuple(sorted(shown.tolist()))))
            size *= 2
        if count > 2:
            trials.append(Trial(query, tuple(others.tolist())))
    return trials


def curve(trials: list[Trial], counts: Counts, pictures: int) -> dict[int, Interval]:
    """Predicted mIoU on new pictures by the number of examples, with intervals.

    A bootstrap over the pictures, which are both what is asked and what is shown: a trial counts
    as often as its query was drawn, times how often its examples were on average.
    """
    drawn = resamples(pictures)
    found = {}
    for size in sorted({len(t.shown) for t in trials}):
        which = [n for n, t in enumerate(trials) if len(t.shown) == size]
        asked = drawn[:, [trials[n].query for n in which]]
        shown = np.stack([drawn[:, list(trials[n].shown)].mean(1) for n in which], 1)
        sums = np.einsum("rt,tab->rab", asked * shown, counts[which].astype(float))
        value = float(miou(counts[which]))
        # All others of a picture are one fewer than all: said of all.
        said = size + 1 if size == pictures - 1 else size
        found[said] = around(value, miou(sums[:, None]), pictures)
    return found


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
    odd = np.minimum(_deviation(effect), 0) * 2 + np.minimum(_deviation(level), 0)
    order = np.argsort(odd, kind="stable").tolist()
    usual = float(np.nanmedian(agreement))
    found = [
        Effect(
            pool.sources[i], float(effect[i]), float(agreement[i]), usual,
            bool(odd[i] < -BAD and effect[i] < -HARM),
        )
        for i in order
    ]  # fmt: skip
    return found, order


def _deviation(values: Any) -> Any:
    """In units of the usual deviation from the median, which is taken as 3 points at least."""
    middle = np.median(values)
    spread = 1.4826 * np.median(np.abs(values - middle))  # of a normal distribution: its σ
    return (values - middle) / max(3.0, float(spread))


def best_subset(
    lab: Trials, trials: list[Trial], counts: Counts, order: list[int], most: int = 4,
    tried: int = 6, asked: int = 16,
) -> tuple[list[int], Interval]:  # fmt: skip
    """A small subset that serves the others best, greedily, and how it does against all examples.

    Candidates for the next place are those with the best effects. A picture that is shown itself
    is not asked.
    """
    pictures = len(lab.examples)
    whole = {t.query: n for n, t in enumerate(trials) if len(t.shown) == pictures - 1}
    queries = sorted(whole)[:: max(1, pictures // asked)]
    candidates = order[::-1][: tried + most]
    chosen: list[int] = []
    value = -np.inf
    result = interval(counts[[whole[q] for q in queries]], counts[[whole[q] for q in queries]])
    while len(chosen) < min(most, pictures - 2):
        options = [c for c in candidates if c not in chosen][:tried]
        plan = [
            (c, Trial(q, (*chosen, c))) for c in options for q in queries if q not in (*chosen, c)
        ]
        found = lab.run([t for _, t in plan])
        gains = {}
        for c in options:
            mine = [n for n, (which, _) in enumerate(plan) if which == c]
            beside = [whole[plan[n][1].query] for n in mine]
            gains[c] = (interval(found[mine], counts[beside]), mine)
        c = max(gains, key=lambda c: gains[c][0].value)
        if gains[c][0].value <= value + 0.5:  # no more for one more
            break
        chosen.append(c)
        result = gains[c][0]
        value = result.value
    return chosen, result


def twins(pool: Pool) -> list[tuple[str, str, bool]]:
    """Pictures that are nearly the same, and whether their labels are too."""
    gray = pool.images.float().mean(1, keepdim=True)
    import torch.nn.functional as F

    thumbs = F.adaptive_avg_pool2d(gray, THUMB).flatten(1).numpy()
    found = []
    for i in range(len(pool)):
        gaps = np.abs(thumbs[i + 1 :] - thumbs[i]).mean(1)
        for j in (i + 1 + np.flatnonzero(gaps < ALIKE)).tolist():
            same = float((pool.labels[i] == pool.labels[j]).float().mean())
            found.append((pool.sources[i], pool.sources[j], same > 0.95))
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


def small_ids(pool: Pool, patch: int = 64) -> list[tuple[int, float, float]]:
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
