"""Reading: logits to labels, confidence, presence and quality in numpy.

What `incontext.inference.decoding`, `.calibration` and `incontext.model.quality` do for a voting
model, whose logits are read as they are; tests hold both to the same results. Letters: K ids, H W
pixels.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from incontext.images.contrast import Mask
from incontext.images.image import resize_nearest
from incontext.inference.segmentation import PRESENCE_SHARE

Floats = np.ndarray[Any, np.dtype[np.float32]]
LIMIT = 10.0  # of a logit, beyond which nothing is surer
FIRST_SLOPE, FIRST_OFFSET, EDGE, PIXELS = 0.5, -0.3, 2.0, 50_000.0  # see `incontext.model.quality`
BAND_ELEMENTS = 2**24  # of maps that are upsampled at once


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads the answers of a checkpoint; see `Calibration`.

    Args:
        slope, offset: logits times slope plus offset are calibrated ones.
        head: weights of the `QualityHead` by name; None: there is none.
    """

    slope: float
    offset: float
    head: Mapping[str, Floats] | None

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> "Reader":
        """Return that of a checkpoint from the `reading` of its graphs' description."""
        head = description["quality"]
        arrays = head and {name: np.array(x, np.float32) for name, x in head.items()}
        return cls(description["slope"], description["offset"], arrays)

    def read(
        self, probabilities: Floats, is_present: np.ndarray[Any, np.dtype[np.bool_]]
    ) -> tuple[np.ndarray[Any, np.dtype[np.int64]], Floats]:
        """Read labels, and how probably they are right, see `decoding.read_ids`.

        Args:
            probabilities: (K + 1, H, W), background first.
            is_present: (K,); ids that are not have no pixels.

        Returns:
            Indices of labels (H, W), 0 = background, and probabilities (H, W) in 0–1.
        """
        order = np.argsort(-probabilities, 0, kind="stable")[:2]
        best = np.take_along_axis(probabilities, order, 0)
        is_id = order[0] > 0
        index = np.where(is_id, order[0], order[1])
        log_ratio = np.log(best[0]) - np.log(np.maximum(best[1], 1e-30))
        logit = np.where(is_id, log_ratio, -log_ratio).clip(-LIMIT, LIMIT)
        probability = sigmoid(self.slope * logit + self.offset)
        table = np.arange(len(probabilities))
        table[1:][~is_present] = 0
        label = table[order[0]]
        return label, np.where(label == index, probability, 1 - probability).astype(np.float32)

    def quality(self, probabilities: Floats, valid: Mask | None = None) -> Floats:
        """Return the IoU of every id's mask with the true one to expect, (K,) in 0–1.

        Args:
            valid: (H, W), the pixels that count; None: all.
        """
        logits = id_logits(probabilities)
        logits = logits[:, valid] if valid is not None else logits.reshape(len(logits), -1)
        mask = logits > 0
        pixels, rest = mask.sum(1), (~mask).sum(1)
        sides = [(p * mask, p * ~mask) for slope, offset in
                 ((self.slope, self.offset), (FIRST_SLOPE, FIRST_OFFSET))
                 for p in (sigmoid(slope * logits + offset),)]  # fmt: skip
        (inside, outside), (first_inside, first_outside) = [
            (i.sum(1, dtype=np.float64), o.sum(1, dtype=np.float64)) for i, o in sides
        ]
        expected = inside / np.maximum(pixels + outside, 1e-6)
        if self.head is None:
            return expected.astype(np.float32)
        scale = PIXELS / np.maximum(pixels + rest, 1)
        first = (first_inside * scale + 1) / (pixels * scale + first_outside * scale + 2)
        ious = np.stack([expected, first]).clip(0.02, 0.98)
        inner = (mask * logits).sum(1, dtype=np.float64) * scale
        edge = (np.abs(logits) < EDGE).sum(1) * scale
        area = pixels * scale
        features = np.stack([
            *np.log(ious / (1 - ious)), inner / (area + 1) / 3,
            np.minimum(edge / (area + 20), 4), np.log(area / PIXELS + 1e-3) / 2,
            logits.max(1, initial=-LIMIT).clip(-10, 10) / 3,
        ], 1)  # fmt: skip
        head = self.head
        x = ((features - head["mean"]) / head["spread"]).clip(-4, 4)
        x = np.maximum(x @ head["body.0.weight"].T + head["body.0.bias"], 0)
        iou = sigmoid(x @ head["body.2.weight"].T + head["body.2.bias"])[:, 0]
        return np.asarray(iou * (expected > 0), np.float32)


def sigmoid(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return 1 / (1 + exp(-x)), without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * x))


def softmax(logits: Floats) -> Floats:
    """Return probabilities (K + 1, H, W) of logits (K, H, W) against a background of 0."""
    values = np.concatenate([np.zeros_like(logits[:1]), logits])
    values = np.exp(values - values.max(0))
    return np.asarray(values / values.sum(0))


def id_logits(probabilities: Floats) -> Floats:
    """Return how strongly each id is painted beside its rival: (K + 1, H, W) → (K, H, W)."""
    logs = np.log(np.maximum(probabilities, 1e-30))
    if len(logs) == 2:  # one id, whose rival is the background: most prompts
        return np.asarray((logs[1:] - logs[:1]).clip(-LIMIT, LIMIT))
    two = np.sort(logs, 0)[-2:]
    rival = np.where(logs == two[1], two[0], two[1])
    return np.asarray((logs - rival).clip(-LIMIT, LIMIT)[1:])


def presence(probabilities: Floats, mask: Mask | None) -> Floats:
    """Return how sure the model is that each id is in the image, (K,); see `Answer.presence`."""
    ids, background = probabilities[1:], probabilities[:1]
    shares = ids / (ids + background)
    if mask is not None:
        shares = shares * resize_nearest(mask, (shares.shape[1], shares.shape[2]))
    flat = shares.reshape(len(shares), -1)
    top = max(1, round(PRESENCE_SHARE * flat.shape[1]))
    return np.asarray(np.partition(flat, -top, 1)[:, -top:].mean(1))


def upsample_rows(values: Floats, size: tuple[int, int]) -> Iterator[tuple[slice, Floats]]:
    """Upsample bilinearly (half-pixel centers) to (height, width), a band of rows at a time."""
    height, width = size
    low_y, high_y, part_y = _neighbors(values.shape[1], height)
    low_x, high_x, part_x = _neighbors(values.shape[2], width)
    step = max(1, BAND_ELEMENTS // (values.shape[0] * width))
    for at in range(0, height, step):
        rows = slice(at, min(at + step, height))
        first, second = values[:, low_y[rows]], values[:, high_y[rows]]
        band = first + (second - first) * part_y[rows, None]
        first, second = band[:, :, low_x], band[:, :, high_x]
        yield rows, first + (second - first) * part_x


def _neighbors(source: int, target: int) -> tuple[np.ndarray[Any, Any], ...]:
    """Return the two source positions around each target position, and the second one's weight."""
    position = ((np.arange(target) + 0.5) * (source / target) - 0.5).clip(0, source - 1)
    low = position.astype(int)
    return low, np.minimum(low + 1, source - 1), (position - low).astype(np.float32)
