"""Decoding: paintings to probabilities of ids, and these to labels, confidence and presence."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from incontext.images.contrast import Mask
from incontext.images.data_mask import data_mask
from incontext.images.image import resize_nearest
from incontext.images.tiles import Blend, Tiling, upsample_rows
from incontext.inference.calibration import Calibration, id_logits, margin_logit, pair_scales
from incontext.inference.prompt import Prompt
from incontext.inference.segmentation import Pixels, Segmentation

# Presence of an id is its mean share of the painting over this share of the image's pixels, the ones
# where it is painted most, so that a small object counts and a stray pixel does not.
PRESENCE_SHARE = 0.002
PRESENT = 0.5  # below it an id's mask is empty, unless a call says otherwise


@dataclass(frozen=True)
class Reading:
    """How paintings are read.

    Attributes:
        calibration: of the model that painted.
        min_presence: presence of an id, 0–1, below which its mask is empty.
    """

    calibration: Calibration = field(default_factory=Calibration)
    min_presence: float = PRESENT


def merge_passes(prompt: Prompt, paintings: Sequence[Tensor]) -> Tensor:
    """Return probabilities of background and each id of the prompt, (K + 1, H, W).

    An id has the probability of its own pass; background has the lowest of all passes, since a
    pixel is background only if every pass says so. A single pass is returned as it is.
    """
    pairs = zip(prompt.passes, paintings, strict=True)
    probabilities = [part.coloring.probabilities(painting) for part, painting in pairs]
    if len(probabilities) == 1:
        return probabilities[0]
    result = torch.empty(1 + len(prompt.ids), *probabilities[0].shape[1:])
    result[0] = torch.stack([p[0] for p in probabilities]).amin(0)
    for part, pass_probabilities in zip(prompt.passes, probabilities, strict=True):
        for row, index in enumerate(part.coloring.ids, 1):
            result[1 + prompt.ids.index(index)] = pass_probabilities[row]
    return result


def presence(probabilities: Tensor, scales: Tensor, mask: Mask | None = None) -> Tensor:
    """Return how sure the model is that each id is in the image: (K + 1, H, W) → (K,) in 0–1.

    A model that reads presence paints no pixel more surely than that, so that what it read is what
    is returned.

    Args:
        scales: (K + 1, K + 1), see `margin_logit`.
        mask: which pixels hold data, of the image's size; nothing is present in the others.
    """
    shares = id_logits(probabilities, scales).sigmoid()
    if mask is not None:
        shares = shares * _resize_mask(mask, shares)
    flat = rearrange(shares, "k h w -> k (h w)")
    top = max(1, round(PRESENCE_SHARE * flat.shape[1]))
    return flat.topk(top, 1).values.mean(1)


def _scales(prompt: Prompt) -> Tensor:
    """Return `pair_scales` of a prompt's ids."""
    return pair_scales(prompt.ids, [part.coloring for part in prompt.passes])


def _resize_mask(mask: Mask, probabilities: Tensor) -> Tensor:
    """Resize a mask of the image to the size of probabilities (…, H, W)."""
    size = (probabilities.shape[-2], probabilities.shape[-1])
    return torch.from_numpy(resize_nearest(mask, size))


def index_map(prompt: Prompt, probabilities: Tensor) -> Tensor:
    """Return the most probable index of each pixel, (K + 1, H, W) → (H, W).

    0 is the background, 1 … K are the prompt's ids in order. An id whose presence is below
    `PRESENT` has no pixels.
    """
    table = torch.arange(len(probabilities))
    table[1:][presence(probabilities, _scales(prompt)) < PRESENT] = 0
    return table[probabilities.argmax(0)]


def to_segmentation(
    image: Image.Image,
    prompt: Prompt,
    probabilities: Tensor,
    id_presence: Tensor,
    paintings: list[Pixels],
    reading: Reading,
) -> Segmentation:
    """Return labels of the image's size from probabilities of the model's size or the image's.

    An id whose presence is too low has no pixels. Pixels of the image without data are background,
    with confidence 0.
    """
    size = (image.height, image.width)
    labels = np.empty(size, np.int32)
    confidence = np.empty(size, np.float32)
    mask = data_mask(image)
    valid = None
    if mask is not None:
        valid = _resize_mask(mask, probabilities)
    scales = _scales(prompt)
    quality = reading.calibration.quality(probabilities, scales, valid)
    present = id_presence >= reading.min_presence
    quality = quality * present
    indices = torch.arange(1 + len(prompt.ids))
    indices[1:][~present] = 0
    ids = torch.tensor([0, *prompt.ids], dtype=torch.int32)
    for rows, values in upsample_rows(probabilities, size):
        best = values.topk(2, 0)
        label = indices[best.indices[0]]
        labels[rows] = ids[label].numpy()
        confidence[rows] = _confidence(
            best.values, best.indices, label, scales, reading.calibration
        ).numpy()
    if mask is not None:
        labels[~mask], confidence[~mask] = 0, 0
    return Segmentation(
        labels, confidence, _by_id(prompt, id_presence), image, tuple(paintings), prompt.colors,
        prompt.names, _by_id(prompt, quality),
    )  # fmt: skip


def _confidence(
    best: Tensor, indices: Tensor, label: Tensor, scales: Tensor, calibration: Calibration
) -> Tensor:
    """Return the probability (H, W) that labels are right.

    Args:
        best, indices: (2, H, W), the two largest probabilities, and whose they are.
        label: (H, W), index of the label, 0 = background.
        scales: see `margin_logit`.
    """
    log_ratio = best[0].log() - best[1].clamp(min=1e-30).log()
    is_id = indices[0] > 0
    index = torch.where(is_id, indices[0], indices[1])  # the id in question
    # With one id in each pass all scales are 1, and huge images need no table of them.
    scale = scales[indices[0], indices[1]] if (scales != 1).any() else scales[0, 0]
    logit = margin_logit(torch.where(is_id, log_ratio, -log_ratio), scale)
    probability = calibration.probability(logit)
    return torch.where(label == index, probability, 1 - probability)


def _by_id(prompt: Prompt, values: Tensor) -> dict[int, float]:
    return dict(zip(prompt.ids, values.tolist(), strict=True))


def decode_image(
    image: Image.Image, prompt: Prompt, paintings: list[Tensor], reading: Reading
) -> Segmentation:
    """Read an image that was painted whole, once for each pass."""
    probabilities = merge_passes(prompt, paintings)
    id_presence = presence(probabilities, _scales(prompt), data_mask(image))
    pixels = [_to_pixels(p) for p in paintings]
    return to_segmentation(image, prompt, probabilities, id_presence, pixels, reading)


def decode_tiles(
    image: Image.Image,
    prompt: Prompt,
    tile: int,
    batch_size: int,
    paint: Callable[[list[Image.Image]], list[list[Tensor]]],
    reading: Reading,
) -> Segmentation:
    """Paint and read an image tile by tile, in its own size; probabilities are blended.

    Args:
        paint: images → for each a list of paintings, one for each pass.
    """
    tiling = Tiling(image.width, image.height, tile)
    blend = Blend(1 + len(prompt.ids), image.width, image.height)
    id_presence = torch.zeros(len(prompt.ids))
    pixels = np.zeros((image.height, image.width, 3), np.uint8)
    boxes, mask, scales = iter(tiling.boxes()), data_mask(image), _scales(prompt)
    while batch := list(islice(boxes, batch_size)):
        tile_paintings = paint([image.crop(box) for box in batch])
        for box, paintings in zip(batch, tile_paintings, strict=True):
            left, top, right, bottom = box
            size = (bottom - top, right - left)
            probabilities = merge_passes(prompt, paintings)
            # At the model's size, as for a whole image: an object fills its tile as much as it
            # would fill a small image.
            tile_mask = None if mask is None else mask[top:bottom, left:right]
            tile_presence = presence(probabilities, scales, tile_mask)
            id_presence = torch.maximum(id_presence, tile_presence)
            for rows, values in upsample_rows(probabilities, size):
                blend.add(box, rows, values)
            small = Image.fromarray(_to_pixels(paintings[0]))
            resized = small.resize(size[::-1], Image.Resampling.NEAREST)
            pixels[top:bottom, left:right] = np.asarray(resized)
    return to_segmentation(image, prompt, blend.result(), id_presence, [pixels], reading)


def _to_pixels(painting: Tensor) -> Pixels:
    """Convert (3, H, W) in 0–255 to (H, W, 3) uint8."""
    return rearrange(painting.round().to(torch.uint8), "c h w -> h w c").numpy()
