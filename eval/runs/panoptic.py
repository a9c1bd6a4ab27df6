"""Instances and panoptic segmentation by painting, as Painter and SegGPT do it.

Objects are painted in the color of the place of their center, one of 16 × 20 (Painter, section
3.2); each color that comes back is an instance. Its class is that of most of its pixels in a
semantic painting. Instances lie over stuff, the most confident first (Panoptic FPN).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from eval.core.dense import ClassMap
from incontext import Example, Predictor, Prompt
from incontext.data.pictures import IGNORE_INDEX
from incontext.labels.color_mask import Rgb

PLACES = (16, 20)  # rows and columns
LEVELS = np.linspace(0, 255, 7).round().astype(int)  # 343 colors, 42 or more apart
STUFF_AREA = 4096  # pixels; smaller stuff is left out
INSTANCE_AREA = 32
OVERLAP = 0.5  # share of an instance that more confident ones may hide


def place_colors() -> dict[int, Rgb]:
    """Assign a color to each place, 1 … 320; neighbors differ much, black is left out."""
    cube = [(int(r), int(g), int(b)) for r in LEVELS for g in LEVELS for b in LEVELS][1:]
    count = PLACES[0] * PLACES[1]
    # 101 and 342 have no common divisor: every color comes once, neighbors are far apart.
    return {place + 1: cube[place * 101 % len(cube)] for place in range(count)}


def instance_places(instance_ids: ClassMap) -> ClassMap:
    """Replace instance ids (H, W), 0: none, by the places of their centers, 1 … 320.

    Two objects with their centers in one place become one, as in the paper.
    """
    places = np.zeros(instance_ids.shape, np.int32)
    for index in np.unique(instance_ids):
        if index > 0:
            rows, columns = np.nonzero(instance_ids == index)
            row = int(rows.mean() / instance_ids.shape[0] * PLACES[0])
            column = int(columns.mean() / instance_ids.shape[1] * PLACES[1])
            places[rows, columns] = 1 + row * PLACES[1] + column
    return places


def instance_prompt(predictor: Predictor, pairs: Sequence[tuple[Image.Image, ClassMap]]) -> Prompt:
    """Encode a prompt that asks for every object in the color of its place.

    Only places that an example shows can be painted; examples with many objects serve best.

    Args:
        pairs: images with their instance ids (H, W).
    """
    colors = place_colors()
    examples = [Example(image, instance_places(ids)) for image, ids in pairs]
    present = {i for example in examples for i in example.labels.present}
    return predictor.prompt(
        examples, kind="instance", coloring={i: colors[i] for i in sorted(present)},
        thumbnail=False,
    )  # fmt: skip


@dataclass(frozen=True)
class Instance:
    """An object: its mask (H, W) bool, its class, and the model's confidence in it (0–1)."""

    mask: Any
    category: int
    score: float


def find_instances(
    places: ClassMap, confidence: Any, classes: ClassMap, things: Sequence[int]
) -> list[Instance]:
    """Turn a painting's places (H, W) into instances, the most confident first.

    Every pixel has one place, so no two instances overlap and there is nothing to suppress.

    Args:
        classes: (H, W), of the semantic painting, see `eval.core.dense`.
        things: classes that have instances.
    """
    instances = []
    for place in np.unique(places):
        mask = places == place
        if place < 1 or mask.sum() < INSTANCE_AREA:
            continue
        counts = np.bincount(classes[mask], minlength=256)[list(things)]
        if counts.any():
            category = int(things[int(counts.argmax())])
            instances.append(Instance(mask, category, float(confidence[mask].mean())))
    return sorted(instances, key=lambda instance: -instance.score)


def merge_segments(
    instances: Sequence[Instance], classes: ClassMap, stuff: Sequence[int], area: int = STUFF_AREA
) -> Any:
    """Lay instances over stuff: (H, W, 2), class and instance number; class 255: no segment."""
    segments = np.zeros((*classes.shape, 2), np.int64)
    segments[..., 0] = IGNORE_INDEX
    occupied = np.zeros(classes.shape, bool)
    for number, instance in enumerate(instances, 1):
        free = instance.mask & ~occupied
        if free.sum() > OVERLAP * instance.mask.sum():
            segments[free] = instance.category, number
            occupied |= free
    for category in stuff:
        mask = (classes == category) & ~occupied
        if mask.sum() >= area:
            segments[mask] = category, 0
    return segments


def count_segments(predicted: Any, truth: Any, crowds: Collection[int] = ()) -> list[list[Any]]:
    """Count [class, sum of IoU, hits, false positives, misses] of the classes of an image.

    As panopticapi counts (Kirillov et al. 2019, section 4.1): a pair of more than half IoU is a
    hit, void is left out of its union; a crowd is neither hit nor missed, and a segment that lies
    for more than half on void and crowds of its own class is not a false positive. torchmetrics
    has no crowds; without them it agrees.

    Args:
        predicted, truth: (H, W, 2), class and segment number; class 255: none, or void.
        crowds: segment numbers of the truth.
    """
    guesses, segments = _segments(predicted), _segments(truth)
    void = truth[..., 0] == IGNORE_INDEX
    counts: dict[int, list[float]] = {}
    hits = set()  # positions in `guesses`

    def add(category: int, column: int, value: float = 1.0) -> None:
        counts.setdefault(category, [0.0, 0.0, 0.0, 0.0])[column] += value

    for category, number, mask in segments:
        if number in crowds:
            continue
        for position, (guess_category, _, guess) in enumerate(guesses):
            intersection = np.count_nonzero(mask & guess)
            if guess_category == category and intersection:
                union = np.count_nonzero(mask | guess) - np.count_nonzero(guess & void)
                if intersection > union / 2:
                    add(category, 0, intersection / union)
                    add(category, 1)
                    hits.add(position)
                    break
        else:
            add(category, 3)
    for position, (category, _, guess) in enumerate(guesses):
        excused = void.copy()
        for true_category, number, mask in segments:
            if number in crowds and true_category == category:
                excused |= mask
        if position not in hits and np.count_nonzero(guess & excused) <= guess.sum() / 2:
            add(category, 2)
    return [[category, *row] for category, row in sorted(counts.items())]


def _segments(pixels: Any) -> list[tuple[int, int, Any]]:
    """List class, number and mask of each segment; void is left out."""
    pairs = np.unique(pixels.reshape(-1, 2), axis=0).tolist()
    return [(c, n, (pixels == (c, n)).all(-1)) for c, n in pairs if c != IGNORE_INDEX]


def panoptic_quality(rows: Sequence[Sequence[Sequence[float]]]) -> dict[int, tuple[float, ...]]:
    """Return PQ, SQ and RQ of each class in percent (Kirillov et al. 2019, equation 1).

    Args:
        rows: of `count_segments`, an image each.
    """
    sums: dict[int, Any] = {}
    for category, *counts in (count for row in rows for count in row):
        sums[int(category)] = sums.get(int(category), 0) + np.array(counts)
    by_class = {}
    for category, (iou, hits, false_positives, misses) in sorted(sums.items()):
        recognition = hits / (hits + false_positives / 2 + misses / 2)
        segmentation = iou / hits if hits else 0.0
        figures = (segmentation * recognition, segmentation, recognition)
        by_class[category] = tuple(100 * float(figure) for figure in figures)
    return by_class


def mean_pq(by_class: Mapping[int, tuple[float, ...]], classes: Sequence[int]) -> float:
    """Return the mean PQ of those of the classes that occur; NaN if none does."""
    values = [by_class[c][0] for c in classes if c in by_class]
    return float(np.mean(values)) if values else float("nan")
