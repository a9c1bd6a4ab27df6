"""Doctor: what a user's own examples are worth, before ten thousand pictures are segmented.

Every example is asked for by the others (leave one out). From the trials: how well new pictures
will come out with 1, 2, 4 … examples; which examples hurt; which ids are taken for each other.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from incontext.errors import InputError
from incontext.evaluation.confusion import Counts, Interval, around, interval, iou, miou, resamples
from incontext.evaluation.diagnostics import (
    Effect,
    asked_for,
    confused,
    effects_of,
    small_ids,
    twins,
)
from incontext.evaluation.episodes import Trial, Trials
from incontext.evaluation.labelled_set import Pool
from incontext.evaluation.subsets import ASKED, TRIED, candidates, choose, cover
from incontext.inference.example import Example
from incontext.inference.predictor import Predictor

FEWEST = 3  # examples
MOST = 64  # examples looked at; more are sampled
SINGLES = 15  # examples that each picture is asked for with alone
SUBSETS = 2  # drawn for each picture and each number of examples


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """What `examine` found; figures are mIoU in percent at the model's size."""

    pool: Pool = field(repr=False)
    looked_at: int
    given: int
    curve: dict[int, Interval]  # examples → predicted mIoU on new pictures
    classes: dict[int, float]  # id → IoU with all examples
    effects: list[Effect]
    alike: bool  # most of the pictures are nearly the same
    twins: list[tuple[str, str, bool]]  # two names, and whether their labels agree
    confused: list[tuple[int, int, float]]  # id, what it is taken for, share
    small: list[tuple[int, float, float]]  # id, its median pixels at the model's size, in a tile
    order: tuple[int, ...]  # numbers of the examples in the pool, worst first
    without: Interval | None  # predicted without the examples that hurt
    best: tuple[str, ...]  # the subset proposed
    best_gain: Interval  # against all examples

    def __repr__(self) -> str:
        most = max(self.curve)
        return (
            f"Diagnosis({self.looked_at} examples, {len(self.bad)} of them hurt, predicted mIoU "
            f"with {most}: {self.curve[most]})"
        )

    @property
    def bad(self) -> list[Effect]:
        """Examples that hurt, worst first."""
        return [e for e in self.effects if e.why]


def examine(
    predictor: Predictor,
    examples: Iterable[Example] | Pool,
    *,
    names: Mapping[int, str] | None = None,
    kind: str = "semantic",
    seed: int = 0,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Diagnosis:
    """Leave-one-out trials over examples, and what follows from them.

    Args:
        examples: three or more; or a `Pool` of the model's size.
        names: of ids.
        kind: see `Predictor.prompt`.
        tell: hears how many of how many trials are done.

    Raises:
        InputError: fewer than three examples that show an object.
    """
    pool = Pool.gather(examples, predictor.size, names)
    given, rng = len(pool), np.random.default_rng(seed)
    pool = _looked_at(pool, rng)
    usable = pool.showing()
    pairs = twins(pool)
    # Where most are alike, as from a fixed camera, new pictures will be too: nothing is flattered.
    alike = len(pairs) > len(pool) * (len(pool) - 1) / 4
    apart = set() if alike else {(a, b) for a, b, _ in pairs}
    trials, whole = schedule(len(pool), pool.showing(), rng, apart)
    lab, done = Trials(predictor, pool, kind=kind), 0
    expected = len(trials) + 2 * TRIED * ASKED

    def one(more: int) -> None:
        nonlocal done
        done += more
        tell(min(done, expected), expected)

    patch = predictor.model.config.patch_size**2

    counts = asked_for(pool, trials, lab.run(trials, one))
    effects, order = effects_of(pool, trials, counts)
    usual = {query: counts[number] for query, number in whole.items()}
    wrong = {i for i, effect in zip(order, effects, strict=True) if effect.why == "mask"}
    best, gain = best_subset(lab, usual, order, wrong, rng, one)
    total = sum(usual.values(), np.zeros_like(counts[0]))
    found = {i: float(v) for i, v in zip(pool.ids, iou(total), strict=True) if not np.isnan(v)}
    return Diagnosis(
        pool, len(pool), given, curve(trials, whole, counts, len(pool), len(usable)), found,
        effects, alike, [(pool.sources[a], pool.sources[b], same) for a, b, same in pairs],
        confused(pool, total), small_ids(pool, patch), tuple(order),
        without(lab, {i for i, e in zip(order, effects, strict=True) if e.why}, one),
        tuple(pool.sources[i] for i in best), gain,
    )  # fmt: skip


def _looked_at(pool: Pool, rng: np.random.Generator) -> Pool:
    """At most 64 examples, and half as many pictures that are known to show nothing: what is
    painted on those is wrong.

    Raises:
        InputError: see `examine`.
    """
    usable = pool.showing()
    if len(usable) < FEWEST:
        raise InputError(
            f"{len(usable)} examples show an object of a pixel or more at {pool.size} × "
            f"{pool.size}; the doctor needs {FEWEST} or more"
        )
    empty = [i for i in pool.known() if i not in set(usable)]
    usable = rng.permutation(usable)[:MOST].tolist()
    return pool.subset(sorted(usable + rng.permutation(empty)[: len(usable) // 2].tolist()))


def schedule(
    count: int, shows: list[int], rng: np.random.Generator, apart: set[tuple[int, int]]
) -> tuple[list[Trial], dict[int, int]]:
    """Each picture asked with single others, with random sets of 2, 4, 8 …, and with all others.

    `shows`: pictures with an object, which alone are examples. `apart`: pairs of near-duplicates,
    which are not shown to each other: they would flatter.

    Returns:
        The trials, and for each query the number of the one with all others.
    """
    trials, whole = [], {}
    for query in range(count):
        near = {a + b - query for a, b in apart if query in (a, b)}
        others = np.array([i for i in shows if i != query and i not in near])
        for one in rng.permutation(others)[:SINGLES]:
            trials.append(Trial(query, (int(one),)))
        size = 2
        while size < len(others):
            for _ in range(SUBSETS):
                shown = rng.choice(others, size, replace=False)
                trials.append(Trial(query, tuple(sorted(shown.tolist()))))
            size *= 2
        if len(others):
            whole[query] = len(trials)
            trials.append(Trial(query, tuple(others.tolist())))
    return trials, whole


def curve(
    trials: list[Trial], whole: dict[int, int], counts: Counts, pictures: int, examples: int
) -> dict[int, Interval]:
    """Predicted mIoU on new pictures by the number of examples, with intervals.

    A bootstrap over the pictures, which are both what is asked and what is shown: a trial counts
    as often as its query was drawn, times how often its examples were on average. All others of a
    picture stand for all examples.
    """
    drawn = resamples(pictures)
    by_size: dict[int, list[int]] = {}
    for number, trial in enumerate(trials):
        if whole.get(trial.query) != number:
            by_size.setdefault(len(trial.shown), []).append(number)
    by_size[examples] = list(whole.values())
    found = {}
    for size, which in sorted(by_size.items()):
        asked = drawn[:, [trials[n].query for n in which]]
        shown = np.stack([drawn[:, list(trials[n].shown)].mean(1) for n in which], 1)
        sums = np.einsum("rt,tab->rab", asked * shown, counts[which].astype(float))
        found[size] = around(float(miou(counts[which])), miou(sums[:, None]), examples)
    return found


def without(lab: Trials, bad: set[int], tell: Callable[[int], None]) -> Interval | None:
    """mIoU predicted with all examples but those that hurt, asked for by each other; None where
    none does, or too few are left."""
    pool = lab.examples
    good = [i for i in pool.showing() if i not in bad]
    if not bad or len(good) < FEWEST:
        return None
    trials = [Trial(q, tuple(i for i in good if i != q)) for q in good]
    return interval(asked_for(pool, trials, lab.run(trials, tell)))


def best_subset(
    lab: Trials, usual: dict[int, Counts], order: list[int],
    distrusted: set[int], rng: np.random.Generator, tell: Callable[[int], None],
) -> tuple[list[int], Interval]:  # fmt: skip
    """A small subset that serves the others best, and how it does against all examples.

    All examples where there is no smaller one. Tried are those with the best effects, and some at
    random, none of them with a mask that looks wrong (`distrusted`). `usual`: counts of each
    picture with all others shown.
    """
    pool = lab.examples
    sets = candidates(pool, rng)
    for times in (1, 2, 4):
        one = sorted(cover(pool, [i for i in order[::-1] if i not in distrusted], times))
        if one not in sets and len(one) < len(pool.showing()):
            sets.append(one)
    trusted = [one for one in sets if not distrusted.intersection(one)]
    everything = pool.showing()
    if not trusted:
        return everything, Interval(0.0, 0.0, 0.0)
    chosen, asked, found = choose(lab, trusted, rng, tell, distrusted)
    known = [n for n, trial in enumerate(asked) if trial.query in usual]
    if not known:
        return everything, Interval(0.0, 0.0, 0.0)
    found = asked_for(pool, [asked[n] for n in known], found[known])
    return chosen, interval(found, np.stack([usual[asked[n].query] for n in known]))
