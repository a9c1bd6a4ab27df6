"""Semantic segmentation of every pixel: with a few examples of each class, or a tuned prompt.

Each class has a prompt of its own examples; a pixel takes the class with the highest score. A tuned
prompt of all classes needs one pass.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eval.core.protocol import HSNetSampler, Ids, Item, read_rgb
from eval.core.setting import Setting
from incontext import Predictor, Prompt
from incontext.data.pictures import IGNORE_INDEX

ClassMap = np.ndarray[Any, np.dtype[Any]]  # (H, W): class from 0 on; 254: none, 255: unknown
NO_CLASS = 254  # of a prediction: no class was painted


@dataclass(frozen=True)
class SemanticImage:
    """An image with a class for every pixel; both are read when they are needed.

    Attributes:
        present: the classes on it, if known without reading.
    """

    name: str
    image_path: Path
    read_classes: Callable[[], ClassMap]
    present: tuple[int, ...] | None = None

    def read_image(self) -> Image.Image:
        """Read the image as RGB."""
        return read_rgb(self.image_path)

    def class_item(self, index: int) -> Item:
        """Return an item of one class against the rest."""

        def read() -> tuple[Image.Image, Ids]:
            classes = self.read_classes()
            ids = (classes == index).astype(np.int16)
            ids[classes == IGNORE_INDEX] = -1
            return self.read_image(), ids

        return Item(self.name, read)


@dataclass(frozen=True)
class SemanticSet:
    """A dataset in which every pixel has a class.

    Attributes:
        layout: the files that it is read from, for `--help`.
        image_source: name in `eval.core.domains.IMAGE_SOURCES`.
        classes: how many.
        read: `read(folder)` lists (images for examples, images for queries).
        published: published figures, (method, mIoU).
    """

    name: str
    title: str
    layout: str
    image_source: str
    classes: int
    read: Callable[[Path], tuple[list[SemanticImage], list[SemanticImage]]]
    published: tuple[tuple[str, str], ...] = field(default=())


def group_by_class(
    images: Sequence[SemanticImage], class_count: int
) -> dict[int, list[SemanticImage]]:
    """Group images by the classes that they show; classes on no image are left out."""
    by_class: dict[int, list[SemanticImage]] = {}
    for image in images:
        present = np.unique(image.read_classes()) if image.present is None else image.present
        for index in present:
            if index < class_count:
                by_class.setdefault(int(index), []).append(image)
    return dict(sorted(by_class.items()))


def class_prompts(
    predictor: Predictor, setting: Setting, by_class: Mapping[int, Sequence[SemanticImage]],
    count: int,
) -> dict[int, Prompt]:  # fmt: skip
    """Encode a prompt for each class, of `count` of its images, drawn by seed 0."""
    sampler, prompts = HSNetSampler(), {}
    for index, images in by_class.items():
        order = sampler.rng.permutation(len(images))[:count]
        items = [images[i].class_item(index) for i in order]
        examples = setting.read_examples(items, predictor.size)
        kind = setting.kind_for(predictor)
        prompts[index] = predictor.prompt(examples, kind=kind, thumbnail=False)
    return prompts


def classify(predictor: Predictor, image: Image.Image, prompts: Mapping[int, Prompt]) -> ClassMap:
    """Return the class with the highest score, (H, W).

    The score is the confidence of the class's own painting, negative where it is not painted.
    """
    best_scores = np.full((image.height, image.width), -np.inf, np.float32)
    classes = np.zeros(best_scores.shape, np.uint8)
    for index, prompt in prompts.items():
        result = predictor.predict(image, prompt)
        scores = np.where(result.mask(1), result.confidence, -result.confidence)
        classes[scores > best_scores] = index
        best_scores = np.maximum(best_scores, scores)
    return classes


def count_pixels(predicted: ClassMap, truth: ClassMap, class_count: int) -> list[list[int]]:
    """Count [class, intersection, pixels predicted, pixels true] of each class predicted or true.

    By torchmetrics' confusion matrix; pixels of an unknown class are left out.
    """
    import torch
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    # One more column takes the pixels without a class.
    guesses = np.where(predicted == NO_CLASS, class_count, predicted).astype(np.int64)
    matrix = multiclass_confusion_matrix(
        torch.from_numpy(guesses), torch.from_numpy(truth.astype(np.int64)), class_count + 1,
        ignore_index=IGNORE_INDEX,
    ).numpy()  # fmt: skip
    intersection, guess_sum, truth_sum = (
        x[:class_count] for x in (np.diagonal(matrix), matrix.sum(0), matrix.sum(1))
    )
    return [
        [int(i), int(intersection[i]), int(guess_sum[i]), int(truth_sum[i])]
        for i in np.flatnonzero(guess_sum + truth_sum)
    ]


def semantic_metrics(
    rows: Sequence[Sequence[Sequence[int]]],
) -> tuple[dict[str, float], dict[int, float]]:
    """Sum `count_pixels` over images: {"mIoU", "accuracy"}, and the IoU of each class, in percent.

    mIoU is the mean over the classes that are true or predicted anywhere.
    """
    sums: dict[int, Any] = {}
    for index, *counts in (count for row in rows for count in row):
        sums[index] = sums.get(index, 0) + np.array(counts)
    iou = {i: 100 * float(h / (g + t - h)) for i, (h, g, t) in sorted(sums.items())}
    hits, _, pixels = sum(sums.values(), np.zeros(3))
    return {"mIoU": float(np.mean(list(iou.values()))), "accuracy": float(100 * hits / pixels)}, iou


def labels_to_classes(labels: Any) -> ClassMap:
    """Convert the ids of a tuned prompt, class + 1 as in label files, to classes; 254: none."""
    return np.where(labels > 0, labels - 1, NO_CLASS).astype(np.uint8)
