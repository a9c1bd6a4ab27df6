"""The very same k pictures for everybody: examples as they are, a tuned prompt, a trained U-Net.

Of one class of each set some pictures are drawn as examples and others as queries, once; the
first k of the examples go to each method, and all are asked for the same queries.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.core.metrics import FewShotIoU, Mask
from eval.studies import unet
from eval.studies.common import ImageSet, binary_ids
from incontext import Example, Predictor, Settings, tune
from incontext.data.pictures import IGNORE_INDEX

QUERIES = 20  # of a class, at most
FEWEST = 4  # queries of a class that counts
MOST_CLASSES = 1  # of a set: tuning takes minutes


@dataclass(frozen=True)
class Draw:
    """A class, pictures that may be examples (in order) and queries, by number."""

    index: int
    examples: list[int]
    queries: list[int]


@dataclass(frozen=True)
class Effort:
    """How long is learned."""

    tuning: Settings = Settings()  # noqa: RUF009 (frozen)
    training: int = unet.STEPS


DEFAULT = Effort()
Answers = Iterator[Mask]
Method = Callable[[Predictor, ImageSet, Draw, int, Effort], Answers]


def draws(data: ImageSet, most: int) -> list[Draw]:
    """One of each class with enough pictures for `most` examples, the first such class."""
    found: list[Draw] = []
    for index, holders in sorted(data.holders.items()):
        order = [int(i) for i in np.random.default_rng((0, index)).permutation(holders)]
        queries = order[most:][:QUERIES]
        if len(queries) >= FEWEST and len(found) < MOST_CLASSES:
            found.append(Draw(index, order[:most], queries))
    return found


def _examples(data: ImageSet, draw: Draw, count: int) -> list[Example]:
    shown = draw.examples[:count]
    listed = [
        Example(data.images[i], binary_ids(data.labels[i], draw.index), ignore=-1) for i in shown
    ]
    return [e for e in listed if e.labels.present]


def _with_prompt(predictor: Predictor, data: ImageSet, draw: Draw, prompt: Any) -> Answers:
    for result in predictor.predict((data.images[i] for i in draw.queries), prompt):
        yield result.mask(1)


def as_they_are(
    predictor: Predictor, data: ImageSet, draw: Draw, count: int, effort: Effort
) -> Answers:
    """A prompt of the examples."""
    prompt = predictor.prompt(_examples(data, draw, count), thumbnail=False)
    return _with_prompt(predictor, data, draw, prompt)


def tuned(predictor: Predictor, data: ImageSet, draw: Draw, count: int, effort: Effort) -> Answers:
    """A prompt learned from the examples, whatever its verdict."""
    examples = _examples(data, draw, count)
    outcome = tune(predictor, examples, settings=effort.tuning, thumbnail=False)
    return _with_prompt(predictor, data, draw, outcome.tuned_prompt)


def trained(
    predictor: Predictor, data: ImageSet, draw: Draw, count: int, effort: Effort
) -> Answers:
    """A small U-Net trained on the examples, see `eval.studies.unet`."""
    shown = [(data.images[i], binary_ids(data.labels[i], draw.index)) for i in draw.examples]
    net = unet.fit(shown[:count], steps=effort.training)
    for query in draw.queries:
        yield unet.answer(net, data.images[query])


METHODS: dict[str, Method] = {"examples": as_they_are, "tuned": tuned, "U-Net": trained}


def score(
    predictor: Predictor, data: ImageSet, method: str, count: int, most: int,
    effort: Effort = DEFAULT,
) -> list[list[int]]:  # fmt: skip
    """Rows of `FewShotIoU` over all queries of all draws."""
    meter = FewShotIoU()
    for draw in draws(data, most):
        answers = METHODS[method](predictor, data, draw, count, effort)
        for query, found in zip(draw.queries, answers, strict=True):
            truth = data.labels[query]
            meter.add(draw.index, found, truth == draw.index, truth == IGNORE_INDEX)
    return meter.rows
