"""Annotations: labels that a caller gives for frames, and the results that they stand for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from incontext.errors import InputError
from incontext.images.image import resize_nearest
from incontext.inference.prompt import Prompt
from incontext.inference.segmentation import Segmentation
from incontext.labels.encodings import UNKNOWN, IdMap, Labels, LabelsLike


@dataclass(frozen=True)
class NewObjects:
    """Labels of objects that nobody looked for before: the rest of their frame is unknown, and so
    is what earlier labels left blank."""

    labels: "LabelsLike | Labels"


Annotation: TypeAlias = "LabelsLike | Labels | NewObjects"


def labels_by_frame(labels: Any) -> dict[int, Any]:
    """Return labels as {frame: labels}; those of the first frame may come alone.

    Raises:
        InputError: a frame that is no whole number.
    """
    if labels is None:
        return {}
    # A COCO annotation is a dictionary too, with texts as keys.
    if not isinstance(labels, Mapping) or any(isinstance(key, str) for key in labels):
        return {0: labels}
    for key in labels:
        if isinstance(key, bool) or not isinstance(key, (int, np.integer)) or key < 0:
            raise InputError(f"labels of frame {key!r}; accepted: whole numbers from 0 on")
    return {int(key): value for key, value in labels.items()}


def annotated_result(
    prompt: Prompt, image: Image.Image, ids: IdMap, predicted: Segmentation | None
) -> Segmentation:
    """Return the result of an annotated frame: its labels, and the prediction where they are
    unknown.

    Args:
        ids: (H, W) of the image's size.
        predicted: needed if any id is unknown.
    """
    valid_mask = ids != UNKNOWN
    labels, confidence = ids, np.ones(ids.shape, np.float32)
    if predicted is not None:
        labels = np.where(valid_mask, ids, predicted.labels)
        confidence = np.where(valid_mask, confidence, predicted.confidence)
    presence = {i: float((labels == i).any()) for i in prompt.ids}
    side = prompt.passes[0].encoded_prompt.size
    small = np.maximum(resize_nearest(labels, side), 0)
    paintings = tuple(part.coloring.paint(small) for part in prompt.passes)
    return Segmentation(
        labels.astype(np.int32), confidence, presence, image, paintings, prompt.colors,
        prompt.names, {i: _quality(labels == i, valid_mask, predicted, i) for i in prompt.ids},
    )  # fmt: skip


def _quality(
    mask: np.ndarray[Any, Any], valid_mask: np.ndarray[Any, Any], predicted: Segmentation | None,
    index: int,
) -> float:  # fmt: skip
    """Return the quality of a mask: 1 where it is annotated, else that of the prediction."""
    if not mask.any():
        return 0.0
    share = float(valid_mask[mask].mean())
    return share + (1 - share) * (predicted.quality[index] if predicted else 1.0)
