"""Baselines: the prompts of plain examples that tuning is measured against."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from incontext.evaluation.episodes import (
    EpisodeRunner,
    best_subset,
    candidate_subsets,
    covering_subset,
)
from incontext.evaluation.labelled_set import LabelledSet
from incontext.inference.predictor import Predictor
from incontext.inference.prompt import Prompt

MAX_EXAMPLES = 64  # of a prompt
NEAREST_COUNT = 4
ONE_EACH, BEST_FEW = "1 example of each id", "the best few"
ALL_EXAMPLES, NEAREST_FEW = "all examples", f"the {NEAREST_COUNT} nearest of all"


def baseline_subsets(
    predictor: Predictor, dataset: LabelledSet, kind: str, rng: np.random.Generator
) -> dict[str, list[int]]:
    """Return the examples of each baseline, by its name; always the same four names."""
    examples = capped_examples(dataset, rng)
    minimal = covering_subset(dataset, rng.permutation(examples).tolist())
    subsets = {
        ONE_EACH: minimal, BEST_FEW: minimal, ALL_EXAMPLES: examples, NEAREST_FEW: examples,
    }  # fmt: skip
    capped_set = dataset.subset(examples)
    candidates = candidate_subsets(capped_set, rng)
    if len(examples) > 2 and candidates:
        best, _, _ = best_subset(EpisodeRunner(predictor, capped_set, kind), candidates, rng)
        subsets[BEST_FEW] = [examples[i] for i in best]
    return subsets


def baseline_prompt(
    predictor: Predictor,
    dataset: LabelledSet,
    name: str,
    indices: Sequence[int],
    kind: str = "semantic",
) -> Prompt:
    """Encode plain examples as the prompt of one baseline of `baseline_subsets`."""
    examples = [dataset.example(i) for i in indices]
    nearest = min(NEAREST_COUNT, len(examples)) if name == NEAREST_FEW else None
    prompt = predictor.prompt(examples, kind=kind, nearest=nearest, half=True, thumbnail=False)
    return replace(prompt, names={i: dataset.names[i] for i in prompt.ids})


def capped_examples(dataset: LabelledSet, rng: np.random.Generator) -> list[int]:
    """Draw at most 64 images with an object, or as many as it takes to show every id."""
    usable = set(dataset.indices_with_objects())
    order = [i for i in rng.permutation(len(dataset)) if i in usable]
    covering = covering_subset(dataset, order)
    others = [i for i in order if i not in covering]
    return sorted(int(i) for i in (covering + others)[: max(MAX_EXAMPLES, len(covering))])
