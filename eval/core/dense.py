"""Every pixel gets a class: semantic segmentation with a few examples of each class, or tuned.

Each class is asked for by itself, with examples of its own; a pixel takes the class that is
believed in most. A tuned prompt of all classes answers at once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eval.core.protocol import Ids, Item, Sampler, rgb
from eval.core.setting import Setting
from incontext import Predictor, Prompt

Map = np.ndarray[Any, np.dtype[Any]]  # (H, W): number of the class, from 0 on; 255 unknown
VOID, NONE = 255, 254  # of the truth: unknown; of an answer: no class


@dataclass(frozen=True)
class Labelled:
    """A picture and its classes; read when asked for."""

    name: str
    image: Path
    classes: Callable[[], Map]
    present: tuple[int, ...] | None = None  # classes on it, where known without reading

    def picture(self) -> Image.Image:
        """RGB."""
        return rgb(self.image)

    def of(self, index: int) -> Item:
        """Where one class is."""

        def read() -> tuple[Image.Image, Ids]:
            classes = self.classes()
            ids = (classes == index).astype(np.int16)
            ids[classes == VOID] = -1
            return self.picture(), ids

        return Item(self.name, read)


@dataclass(frozen=True)
class SemanticSet:
    """A dataset in which every pixel has a class: `parts(folder)` are (to show, to ask for)."""

    name: str
    title: str
    layout: str
    pictures: str
    classes: int
    parts: Callable[[Path], tuple[list[Labelled], list[Labelled]]]
    published: tuple[tuple[str, str], ...] = field(default=())


def holders(shown: Sequence[Labelled], classes: int) -> dict[int, list[Labelled]]:
    """Pictures that show each class, as far as any does."""
    found: dict[int, list[Labelled]] = {}
    for picture in shown:
        there = np.unique(picture.classes()) if picture.present is None else picture.present
        for index in there:
            if index < classes:
                found.setdefault(int(index), []).append(picture)
    return dict(sorted(found.items()))


def prompts(
    predictor: Predictor, setting: Setting, held: Mapping[int, Sequence[Labelled]], count: int
) -> dict[int, Prompt]:
    """A prompt for each class, of `count` of its pictures, drawn by seed 0."""
    sampler, made = Sampler(), {}
    for index, pictures in held.items():
        order = sampler.rng.permutation(len(pictures))[:count]
        examples = setting.shown([pictures[i].of(index) for i in order], predictor.size)
        kind = setting.kind_for(predictor)
        made[index] = predictor.prompt(examples, kind=kind, thumbnail=False)
    return made


def classify(predictor: Predictor, picture: Image.Image, by_class: Mapping[int, Prompt]) -> Map:
    """The class believed in most, (H, W); belief is the confidence, negative where not painted."""
    best = np.full((picture.height, picture.width), -np.inf, np.float32)
    classes = np.zeros(best.shape, np.uint8)
    for index, prompt in by_class.items():
        result = predictor.predict(picture, prompt)
        belief = np.where(result.mask(1), result.confidence, -result.confidence)
        classes[belief > best] = index
        best = np.maximum(best, belief)
    return classes


def tally(found: Map, truth: Map, classes: int) -> list[list[int]]:
    """[class, intersection, pixels found, pixels true] of the classes found or true.

    By torchmetrics' confusion matrix; pixels of an unknown class are left out.
    """
    import torch
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    # One more column takes what was given no class.
    guesses = np.where(found == NONE, classes, found).astype(np.int64)
    matrix = multiclass_confusion_matrix(
        torch.from_numpy(guesses), torch.from_numpy(truth.astype(np.int64)), classes + 1,
        ignore_index=VOID,
    ).numpy()  # fmt: skip
    hit, guessed, true = (x[:classes] for x in (np.diagonal(matrix), matrix.sum(0), matrix.sum(1)))
    return [
        [int(i), int(hit[i]), int(guessed[i]), int(true[i])] for i in np.flatnonzero(guessed + true)
    ]


def figures(rows: Sequence[Sequence[Sequence[int]]]) -> tuple[dict[str, float], dict[int, float]]:
    """mIoU over classes seen or found, pixel accuracy, in percent; and the IoU of each class."""
    sums: dict[int, Any] = {}
    for index, *counts in (one for row in rows for one in row):
        sums[index] = sums.get(index, 0) + np.array(counts)
    iou = {i: 100 * float(h / (g + t - h)) for i, (h, g, t) in sorted(sums.items())}
    hit, _, true = sum(sums.values(), np.zeros(3))
    return {"mIoU": float(np.mean(list(iou.values()))), "accuracy": float(100 * hit / true)}, iou


def classes_of(labels: Any) -> Map:
    """Ids of a tuned prompt, class + 1 as label files have them, as classes; 254: none."""
    return np.where(labels > 0, labels - 1, NONE).astype(np.uint8)
