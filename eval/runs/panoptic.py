"""Instances and panoptic segmentation by painting, as Painter and SegGPT do it.

Objects are painted in the color of the place where their center lies, one of 16 × 20 (Painter,
section 3.2); each color that comes back is an instance. Its class is what most of its pixels are in
a semantic painting. Instances lie over stuff, the surest first (Panoptic FPN).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from eval.core.dense import VOID, Map
from incontext import Example, Predictor, Prompt
from incontext.labels.color_mask import Rgb

PLACES = (16, 20)  # rows and columns
LEVELS = np.linspace(0, 255, 7).round().astype(int)  # 343 colors, 42 or more apart
STUFF_AREA = 4096  # pixels; smaller stuff is left out
INSTANCE_AREA = 32
OVERLAP = 0.5  # share of an instance that surer ones may hide


def place_colors() -> dict[int, Rgb]:
    """A color for each place, 1 … 320; neighbors differ much, black is left out."""
    cube = [(int(r), int(g), int(b)) for r in LEVELS for g in LEVELS for b in LEVELS][1:]
    count = PLACES[0] * PLACES[1]
    # 101 and 342 have no common divisor: every color comes once, neighbors are far apart.
    return {place + 1: cube[place * 101 % len(cube)] for place in range(count)}


def places(instances: Map) -> Map:
    """Instance ids (H, W), 0: none → places of their centers, 1 … 320.

    Two objects with their centers in one place become one: so it is in the paper.
    """
    found = np.zeros(instances.shape, np.int32)
    for index in np.unique(instances):
        if index > 0:
            rows, columns = np.nonzero(instances == index)
            row = int(rows.mean() / instances.shape[0] * PLACES[0])
            column = int(columns.mean() / instances.shape[1] * PLACES[1])
            found[rows, columns] = 1 + row * PLACES[1] + column
    return found


def instance_prompt(predictor: Predictor, shown: Sequence[tuple[Image.Image, Map]]) -> Prompt:
    """A prompt that asks for every object in the color of its place.

    Only places that an example shows can be painted; examples with many objects serve best.
    """
    colors = place_colors()
    examples = [Example(picture, places(ids)) for picture, ids in shown]
    there = {i for example in examples for i in example.labels.present}
    return predictor.prompt(
        examples, kind="instance", coloring={i: colors[i] for i in sorted(there)}, thumbnail=False,
    )  # fmt: skip


@dataclass(frozen=True)
class Instance:
    """An object: its mask (H, W) bool, its class, how sure it is (0–1)."""

    mask: Any
    category: int
    score: float


def instances(painted: Map, confidence: Any, classes: Map, things: Sequence[int]) -> list[Instance]:
    """Places (H, W) as instances, the surest first; classes (H, W) as `eval.core.dense` has them.

    Every pixel has one place, so that no two overlap and there is nothing to suppress.
    """
    found = []
    for place in np.unique(painted):
        mask = painted == place
        if place < 1 or mask.sum() < INSTANCE_AREA:
            continue
        counts = np.bincount(classes[mask], minlength=256)[list(things)]
        if counts.any():
            category = int(things[int(counts.argmax())])
            found.append(Instance(mask, category, float(confidence[mask].mean())))
    return sorted(found, key=lambda one: -one.score)


def merged(
    objects: Sequence[Instance], classes: Map, stuff: Sequence[int], area: int = STUFF_AREA
) -> Any:
    """(H, W, 2): class and instance number of each pixel; class 255 where nothing was said."""
    answer = np.zeros((*classes.shape, 2), np.int64)
    answer[..., 0] = VOID
    taken = np.zeros(classes.shape, bool)
    for number, one in enumerate(objects, 1):
        free = one.mask & ~taken
        if free.sum() > OVERLAP * one.mask.sum():
            answer[free] = one.category, number
            taken |= free
    for category in stuff:
        mask = (classes == category) & ~taken
        if mask.sum() >= area:
            answer[mask] = category, 0
    return answer


def quality(found: Any, truth: Any, crowds: Collection[int] = ()) -> list[list[Any]]:
    """[class, sum of IoU, hits, false, missed] of the classes that a picture has.

    As panopticapi counts (Kirillov et al. 2019, section 4.1): a pair of more than half IoU is a
    hit, void is left out of its union; a crowd is neither hit nor missed, and what lies for more
    than half on void and crowds of its own class is not false. torchmetrics has no crowds; without
    them it says the same.

    Args:
        found, truth: (H, W, 2), class and segment number; class 255: none, or void.
        crowds: segment numbers of the truth.
    """
    ours, theirs = _segments(found), _segments(truth)
    void = truth[..., 0] == VOID
    counts: dict[int, list[float]] = {}
    met = set()

    def add(category: int, column: int, value: float = 1.0) -> None:
        counts.setdefault(category, [0.0, 0.0, 0.0, 0.0])[column] += value

    for category, number, mask in theirs:
        if number in crowds:
            continue
        for at, (guess, _, area) in enumerate(ours):
            both = np.count_nonzero(mask & area)
            if guess == category and both:
                either = np.count_nonzero(mask | area) - np.count_nonzero(area & void)
                if both > either / 2:
                    add(category, 0, both / either)
                    add(category, 1)
                    met.add(at)
                    break
        else:
            add(category, 3)
    for at, (category, _, area) in enumerate(ours):
        excused = void.copy()
        for other, number, mask in theirs:
            if number in crowds and other == category:
                excused |= mask
        if at not in met and np.count_nonzero(area & excused) <= np.count_nonzero(area) / 2:
            add(category, 2)
    return [[category, *row] for category, row in sorted(counts.items())]


def _segments(pixels: Any) -> list[tuple[int, int, Any]]:
    """Class, number and mask of each segment; void left out."""
    pairs = np.unique(pixels.reshape(-1, 2), axis=0).tolist()
    return [(c, n, (pixels == (c, n)).all(-1)) for c, n in pairs if c != VOID]


def panoptic_quality(rows: Sequence[Sequence[Sequence[float]]]) -> dict[int, tuple[float, ...]]:
    """PQ, SQ and RQ of each class in percent (Kirillov et al. 2019, equation 1)."""
    sums: dict[int, Any] = {}
    for category, *counts in (one for row in rows for one in row):
        sums[int(category)] = sums.get(int(category), 0) + np.array(counts)
    found = {}
    for category, (iou, hits, false, missed) in sorted(sums.items()):
        recognized = hits / (hits + false / 2 + missed / 2)
        segmented = iou / hits if hits else 0.0
        found[category] = tuple(100 * float(x) for x in (segmented * recognized, segmented,
                                                         recognized))  # fmt: skip
    return found


def means(by_class: Mapping[int, tuple[float, ...]], of: Sequence[int]) -> float:
    """Mean PQ of some classes, those that occur."""
    values = [by_class[c][0] for c in of if c in by_class]
    return float(np.mean(values)) if values else float("nan")
