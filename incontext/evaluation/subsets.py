"""Subsets: which few examples serve best, found by trying them on the other pictures."""

from collections.abc import Callable, Collection, Sequence

import numpy as np

from incontext.evaluation.comparison import best_of
from incontext.evaluation.confusion import Counts
from incontext.evaluation.episodes import Trial, Trials
from incontext.evaluation.labelled_set import Pool, shown_by

TRIED = 4  # sets of each size
ASKED = 12  # pictures that a set is tried on


def cover(pool: Pool, order: Sequence[int], times: int = 1) -> list[int]:
    """The first pictures in an order that together show every id so many times, where they can."""
    shows = shown_by(pool)
    wanted = np.minimum(times, shows.sum(0))
    chosen: list[int] = []
    seen = np.zeros(len(pool.ids), int)
    for index in order:
        if (shows[index] & (seen < wanted)).any():
            chosen.append(index)
            seen += shows[index]
    return chosen


def candidates(pool: Pool, rng: np.random.Generator) -> list[list[int]]:
    """Sets that show every id once, and four times, drawn at random; none has all pictures."""
    sets = []
    for times in (1, 4):
        for _ in range(TRIED):
            one = sorted(cover(pool, rng.permutation(len(pool)).tolist(), times))
            if one not in sets and len(one) < len(pool.showing()):
                sets.append(one)
    return sets


def choose(
    lab: Trials,
    sets: Sequence[Sequence[int]],
    rng: np.random.Generator,
    tell: Callable[[int], None] = lambda done: None,
    distrusted: Collection[int] = (),
) -> tuple[list[int], list[Trial], Counts]:
    """The set that does best on pictures which are not in it, and the trials that say so.

    Every set is tried on the same pictures, except for its own. Those that are `distrusted` are
    never asked: a set that holds one would be spared it.
    """
    order = [i for i in rng.permutation(len(lab.examples)).tolist() if i not in distrusted]
    plan = [
        [Trial(q, tuple(one)) for q in [i for i in order if i not in one][:ASKED]] for one in sets
    ]
    counts = lab.run([trial for trials in plan for trial in trials], tell)
    ends = np.cumsum([len(trials) for trials in plan])[:-1]
    parts: list[Counts] = np.split(counts, ends)
    best = best_of(parts)
    return list(sets[best]), plan[best], parts[best]
