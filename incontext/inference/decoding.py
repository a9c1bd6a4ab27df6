"""Decoding: paintings to probabilities of ids, and these to labels, confidence and presence."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from incontext.images.blend import upsample_rows
from incontext.images.contrast import Mask
from incontext.images.data_mask import data_mask
from incontext.images.image import resize_nearest
from incontext.inference.calibration import (
    Calibration,
    id_logits,
    margin_logit,
    pair_scales,
)
from incontext.inference.prompt import Prompt
from incontext.inference.segmentation import PRESENCE_SHARE, PRESENT, Pixels, Segmentation


@dataclass(frozen=True)
class Reading:
    """How paintings are read.

    Attributes:
        calibration: of the model that painted.
        min_presence: presence of an id, 0–1, below which its mask is empty.
    """

    calibration: Calibration = field(default_factory=Calibration)
    min_presence: float = PRESENT


@dataclass(frozen=True, eq=False)
class Answer:
    """What a model says of one image, before it is read as labels.

    Attributes:
        probabilities: (K + 1, H, W) of each id of the prompt, background first.
        scales: see `id_logits`.
        paintings: (3, H, W) in 0–255 of each pass of the prompt.
    """

    probabilities: Tensor
    scales: Tensor | None
    paintings: Sequence[Tensor]

    @classmethod
    def from_paintings(cls, prompt: Prompt, paintings: Sequence[Tensor]) -> "Answer":
        """Read paintings by the distance to their colors.

        An id has the probability of its own pass; background has the lowest of all passes, since a
        pixel is background only if every pass says so.
        """
        colorings = [part.coloring for part in prompt.passes]
        passes = [c.probabilities(p) for c, p in zip(colorings, paintings, strict=True)]
        background = torch.stack([p[:1] for p in passes]).amin(0)
        probabilities = _in_order(prompt, [p[1:] for p in passes], background)
        return cls(probabilities, pair_scales(prompt.ids, colorings), paintings)

    @classmethod
    def from_logits(
        cls, prompt: Prompt, logits: Sequence[Tensor], paintings: Sequence[Tensor]
    ) -> "Answer":
        """Take what paintings were composed of: logits (K, H, W) of each pass against background.

        How the ids are divided among passes makes no difference.
        """
        background = torch.zeros_like(logits[0][:1])
        return cls(_in_order(prompt, logits, background).softmax(0), None, paintings)

    def presence(self, mask: Mask | None = None) -> Tensor:
        """Return how sure the model is that each id is in the image, (K,) in 0–1.

        A model that reads presence paints no pixel more surely than that, so that what it read is
        what is returned.

        Args:
            mask: which pixels hold data, of the image's size; nothing is present in the others.
        """
        if self.scales is None:
            ids, background = self.probabilities[1:], self.probabilities[:1]
            shares = ids / (ids + background)
        else:
            shares = id_logits(self.probabilities, self.scales).sigmoid()
        if mask is not None:
            shares = shares * _resize_mask(mask, shares)
        flat = rearrange(shares, "k h w -> k (h w)")
        top = max(1, round(PRESENCE_SHARE * flat.shape[1]))
        return flat.topk(top, 1).values.mean(1)

    def index_map(self) -> Tensor:
        """Return the most probable index of each pixel, (H, W).

        0 is the background, 1 … K are the prompt's ids in order. An id whose presence is below
        `PRESENT` has no pixels.
        """
        table = torch.arange(len(self.probabilities))
        table[1:][self.presence() < PRESENT] = 0
        return table[self.probabilities.argmax(0)]


def _in_order(prompt: Prompt, passes: Sequence[Tensor], background: Tensor) -> Tensor:
    """Sort maps (K, H, W) of each pass's ids by the prompt's ids, after that of the background."""
    rows = {
        index: row
        for part, maps in zip(prompt.passes, passes, strict=True)
        for index, row in zip(part.coloring.ids, maps, strict=True)
    }
    return torch.stack([background[0], *(rows[index] for index in prompt.ids)])


def _resize_mask(mask: Mask, probabilities: Tensor) -> Tensor:
    """Resize a mask of the image to the size of probabilities (…, H, W)."""
    size = (probabilities.shape[-2], probabilities.shape[-1])
    return torch.from_numpy(resize_nearest(mask, size))


def to_segmentation(
    image: Image.Image,
    prompt: Prompt,
    answer: Answer,
    id_presence: Tensor,
    paintings: list[Pixels],
    reading: Reading,
) -> Segmentation:
    """Return labels of the image's size from an answer in the model's size or the image's.

    An id whose presence is too low has no pixels. Pixels of the image without data are background,
    with confidence 0.
    """
    size = (image.height, image.width)
    labels = np.empty(size, np.int32)
    confidence = np.empty(size, np.float32)
    mask = data_mask(image)
    valid = None
    if mask is not None:
        valid = _resize_mask(mask, answer.probabilities)
    quality = reading.calibration.quality(answer.probabilities, answer.scales, valid)
    present = id_presence >= reading.min_presence
    quality = quality * present
    indices = torch.arange(1 + len(prompt.ids))
    indices[1:][~present] = 0
    ids = torch.tensor([0, *prompt.ids], dtype=torch.int32)
    for rows, values in upsample_rows(answer.probabilities, size):
        read = read_single_id if len(prompt.ids) == 1 else read_ids
        label, probability = read(values, indices, answer.scales, reading.calibration)
        labels[rows], confidence[rows] = ids[label].numpy(), probability.numpy()
    if mask is not None:
        labels[~mask], confidence[~mask] = 0, 0
    return Segmentation(
        labels, confidence, _by_id(prompt, id_presence), image, tuple(paintings), prompt.colors,
        prompt.names, _by_id(prompt, quality),
    )  # fmt: skip


def read_ids(
    probabilities: Tensor, indices: Tensor, scales: Tensor | None, calibration: Calibration
) -> tuple[Tensor, Tensor]:
    """Read labels, and how probably they are right.

    Args:
        probabilities: (K + 1, H, W), background first.
        indices: (K + 1,), index of the label where a map is the largest: its own, or 0.
        scales: see `id_logits`.

    Returns:
        Indices of labels (H, W), 0 = background, and probabilities (H, W) in 0–1.
    """
    best, best_indices = probabilities.topk(2, 0)
    log_ratio = best[0].log() - best[1].clamp(min=1e-30).log()
    is_id = best_indices[0] > 0
    index = torch.where(is_id, best_indices[0], best_indices[1])  # the id in question
    scale = scales
    if scales is not None:
        # With one id in each pass all scales are 1, and huge images need no table of them.
        has_others = bool((scales != 1).any())
        scale = scales[best_indices[0], best_indices[1]] if has_others else scales[0, 0]
    logit = margin_logit(torch.where(is_id, log_ratio, -log_ratio), scale)
    probability, label = calibration.probability(logit), indices[best_indices[0]]
    return label, torch.where(label == index, probability, 1 - probability)


def read_single_id(
    probabilities: Tensor, indices: Tensor, scales: Tensor | None, calibration: Calibration
) -> tuple[Tensor, Tensor]:
    """Read labels of a single id as `read_ids` does, with fewer tables."""
    probability = calibration.probability(id_logits(probabilities, scales)[0])
    is_id = (probabilities[1] > probabilities[0]) & (indices[1] > 0)
    return is_id.long(), torch.where(is_id, probability, 1 - probability)


def _by_id(prompt: Prompt, values: Tensor) -> dict[int, float]:
    return dict(zip(prompt.ids, values.tolist(), strict=True))


def decode_image(
    image: Image.Image, prompt: Prompt, answer: Answer, reading: Reading
) -> Segmentation:
    """Read an image that was painted whole, once for each pass."""
    pixels = [to_pixels(painting) for painting in answer.paintings]
    id_presence = answer.presence(data_mask(image))
    return to_segmentation(image, prompt, answer, id_presence, pixels, reading)


def to_pixels(painting: Tensor) -> Pixels:
    """Convert (3, H, W) in 0–255 to (H, W, 3) uint8."""
    return rearrange(painting.round().to(torch.uint8), "c h w -> h w c").numpy()
