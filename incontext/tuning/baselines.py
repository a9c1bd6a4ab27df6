"""Untuned: the ways to use examples as they are, which tuning is measured against."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from incontext.evaluation.episodes import Trials
from incontext.evaluation.labelled_set import Pool
from incontext.evaluation.subsets import candidates, choose, cover
from incontext.inference.predictor import Predictor
from incontext.inference.prompt import Prompt

MOST_SHOWN = 64  # examples of a prompt
NEAREST = 4
ONE, FEW, ALL = "1 example of each id", "the best few", "all examples"
NEAR = f"the {NEAREST} nearest of all"


def ways(
    predictor: Predictor, pool: Pool, kind: str, rng: np.random.Generator
) -> dict[str, list[int]]:
    """Which pictures of a pool are shown, by name of the way; always the same four names."""
    some = most_shown(pool, rng)
    one = cover(pool, rng.permutation(some).tolist())
    sets = {ONE: one, FEW: one, ALL: some, NEAR: some}
    few = pool.subset(some)
    drawn = candidates(few, rng)
    if len(some) > 2 and drawn:
        best, _, _ = choose(Trials(predictor, few, kind), drawn, rng)
        sets[FEW] = [some[i] for i in best]
    return sets


def prompt_of(
    predictor: Predictor, pool: Pool, name: str, chosen: Sequence[int], kind: str = "semantic"
) -> Prompt:
    """The prompt of some pictures as they are; of `ways`, under the name there."""
    examples = [pool.example(i) for i in chosen]
    nearest = min(NEAREST, len(examples)) if name == NEAR else None
    prompt = predictor.prompt(examples, kind=kind, nearest=nearest, half=True, thumbnail=False)
    return replace(prompt, names={i: pool.names[i] for i in prompt.ids})


def most_shown(pool: Pool, rng: np.random.Generator) -> list[int]:
    """Pictures that are shown where all are meant: at most 64, and every id among them."""
    there = set(pool.showing())
    order = [i for i in rng.permutation(len(pool)) if i in there]
    first = cover(pool, order)
    rest = [i for i in order if i not in first]
    return sorted(int(i) for i in (first + rest)[: max(MOST_SHOWN, len(first))])
