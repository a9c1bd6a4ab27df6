"""The very same k images for all methods: examples as they are, a tuned prompt, a trained U-Net.

Of one class of each set some images are drawn as examples and others as queries, once; the first k
of the examples go to each method, and all methods segment the same queries.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.core.metrics import FewShotIoU, Mask
from eval.studies import unet
from eval.studies.common import ImageSet
from incontext import Predictor, Settings, tune

MAX_QUERIES = 20  # of a class
MIN_QUERIES = 4  # of a class that counts
MAX_CLASSES = 1  # of a set: tuning takes minutes


@dataclass(frozen=True)
class Draw:
    """A class, and the numbers of its images for examples (in order) and for queries."""

    index: int
    examples: list[int]
    queries: list[int]


@dataclass(frozen=True)
class Effort:
    """How long methods that learn may learn."""

    tuning: Settings = Settings()  # noqa: RUF009 (frozen)
    training: int = unet.STEPS


DEFAULT = Effort()
Masks = Iterator[Mask]
Method = Callable[[Predictor, ImageSet, Draw, int, Effort], Masks]


def draw_classes(data: ImageSet, example_count: int) -> list[Draw]:
    """Draw examples and queries of the first `MAX_CLASSES` classes with enough images."""
    draws: list[Draw] = []
    for index, numbers in sorted(data.images_by_class.items()):
        order = [int(i) for i in np.random.default_rng((0, index)).permutation(numbers)]
        queries = order[example_count:][:MAX_QUERIES]
        if len(queries) >= MIN_QUERIES and len(draws) < MAX_CLASSES:
            draws.append(Draw(index, order[:example_count], queries))
    return draws


def _with_prompt(predictor: Predictor, data: ImageSet, draw: Draw, prompt: Any) -> Masks:
    for result in predictor.predict((data.images[i] for i in draw.queries), prompt):
        yield result.mask(1)


def with_examples(
    predictor: Predictor, data: ImageSet, draw: Draw, count: int, effort: Effort
) -> Masks:
    """Segment by a prompt of the examples."""
    examples = data.examples(draw.examples[:count], draw.index)
    prompt = predictor.prompt(examples, thumbnail=False)
    return _with_prompt(predictor, data, draw, prompt)


def with_tuned_prompt(
    predictor: Predictor, data: ImageSet, draw: Draw, count: int, effort: Effort
) -> Masks:
    """Segment by a prompt tuned on the examples, whether it improves on them or not."""
    examples = data.examples(draw.examples[:count], draw.index)
    outcome = tune(predictor, examples, settings=effort.tuning, thumbnail=False)
    return _with_prompt(predictor, data, draw, outcome.tuned_prompt)


def with_unet(
    predictor: Predictor, data: ImageSet, draw: Draw, count: int, effort: Effort
) -> Masks:
    """Segment by a small U-Net trained on the examples, see `eval.studies.unet`."""
    numbers = draw.examples[:count]
    examples = [(data.images[i], data.binary_ids(i, draw.index)) for i in numbers]
    net = unet.fit(examples, steps=effort.training)
    for query in draw.queries:
        yield unet.segment(net, data.images[query])


METHODS: dict[str, Method] = {
    "examples": with_examples, "tuned": with_tuned_prompt, "U-Net": with_unet,
}  # fmt: skip


def score(
    predictor: Predictor, data: ImageSet, method: str, count: int, example_count: int,
    effort: Effort = DEFAULT,
) -> list[list[int]]:  # fmt: skip
    """Return rows of `FewShotIoU` over the queries of all drawn classes.

    Args:
        count: of the examples, those that the method gets.
        example_count: examples to draw.
    """
    meter = FewShotIoU()
    for draw in draw_classes(data, example_count):
        masks = METHODS[method](predictor, data, draw, count, effort)
        for query, mask in zip(draw.queries, masks, strict=True):
            meter.add(draw.index, mask, *data.truth(query, draw.index))
    return meter.rows
