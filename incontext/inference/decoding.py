"""Belief: how surely each pixel has each id, from paintings to labels, confidence and presence."""

from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from incontext.images.tiles import Blend, Tiling, upsample_rows
from incontext.inference.prompt import Prompt
from incontext.inference.segmentation import Pixels, Segmentation

# An id counts as present as surely as the model believes in this share of the picture's pixels
# that it believes in most; one stray pixel is not enough, a small object is.
PRESENCE_SHARE = 0.002
PRESENT = 0.5  # below it an id's mask is empty


def merge(prompt: Prompt, paintings: Sequence[Tensor]) -> Tensor:
    """Belief in background and each id of the prompt, (K + 1, H, W), from all passes.

    An id has the belief of its own pass; a pixel is background as surely as the least sure pass
    says. With one pass that is the pass itself.
    """
    pairs = zip(prompt.passes, paintings, strict=True)
    beliefs = [part.coloring.read(painting) for part, painting in pairs]
    if len(beliefs) == 1:
        return beliefs[0]
    merged = torch.empty(1 + len(prompt.ids), *beliefs[0].shape[1:])
    merged[0] = torch.stack([b[0] for b in beliefs]).amin(0)
    for part, belief in zip(prompt.passes, beliefs, strict=True):
        for row, index in enumerate(part.coloring.ids, 1):
            merged[1 + prompt.ids.index(index)] = belief[row]
    return merged


def presence_of(belief: Tensor) -> Tensor:
    """How surely each id is in the picture: (K + 1, H, W) → (K,) in 0–1."""
    flat = belief[1:].flatten(1)
    top = max(1, round(PRESENCE_SHARE * flat.shape[1]))
    return flat.topk(top, 1).values.mean(1)


def index_map(belief: Tensor) -> Tensor:
    """Belief (K + 1, H, W) → 0 background, 1 … K the prompt's ids in order: (H, W).

    An id that is rather not there than there has no pixels.
    """
    table = torch.arange(len(belief))
    table[1:][presence_of(belief) < PRESENT] = 0
    return table[belief.argmax(0)]


def segmentation_of(
    picture: Image.Image,
    prompt: Prompt,
    belief: Tensor,
    presence: Tensor,
    paintings: list[Pixels],
) -> Segmentation:
    """Beliefs, of the model's size or the picture's, to labels of the picture's size.

    An id that is rather not there than there has no pixels.
    """
    size = (picture.height, picture.width)
    labels = np.empty(size, np.int32)
    confidence = np.empty(size, np.float32)
    ids = np.array([0, *prompt.ids], np.int32)
    ids[1:][presence.numpy() < PRESENT] = 0
    for rows, values in upsample_rows(belief, size):
        best = values.topk(2, 0)
        labels[rows] = ids[best.indices[0].numpy()]
        confidence[rows] = (best.values[0] - best.values[1]).numpy()
    return Segmentation(
        labels, confidence, dict(zip(prompt.ids, presence.tolist(), strict=True)), picture,
        tuple(paintings), prompt.colors, prompt.names,
    )  # fmt: skip


def read_whole(picture: Image.Image, prompt: Prompt, paintings: list[Tensor]) -> Segmentation:
    """A picture that was painted whole, once for each pass."""
    belief = merge(prompt, paintings)
    shown = [_pixels(p) for p in paintings]
    return segmentation_of(picture, prompt, belief, presence_of(belief), shown)


def read_tiles(
    picture: Image.Image,
    prompt: Prompt,
    tile: int,
    batch_size: int,
    paint: Callable[[list[Image.Image]], list[list[Tensor]]],
) -> Segmentation:
    """Paint tile by tile, in the picture's own size: beliefs blended, paintings pasted.

    `paint` takes several pictures to a list of paintings for each, one a pass.
    """
    tiling = Tiling(picture.width, picture.height, tile)
    blend = Blend(1 + len(prompt.ids), picture.width, picture.height)
    presence = torch.zeros(len(prompt.ids))
    shown = np.zeros((picture.height, picture.width, 3), np.uint8)
    boxes = iter(tiling.boxes())
    while part := list(islice(boxes, batch_size)):
        paintings = paint([picture.crop(box) for box in part])
        for box, painted in zip(part, paintings, strict=True):
            left, top, right, bottom = box
            size = (bottom - top, right - left)
            belief = merge(prompt, painted)
            # At the model's size, as for a whole picture: an object fills its tile as much as it
            # would fill a small picture.
            presence = torch.maximum(presence, presence_of(belief))
            for rows, values in upsample_rows(belief, size):
                blend.add(box, rows, values)
            small = Image.fromarray(_pixels(painted[0]))
            resized = small.resize(size[::-1], Image.Resampling.NEAREST)
            shown[top:bottom, left:right] = np.asarray(resized)
    return segmentation_of(picture, prompt, blend.result(), presence, [shown])


def _pixels(painting: Tensor) -> Pixels:
    """(3, H, W) in 0–255 → (H, W, 3) uint8."""
    return painting.round().to(torch.uint8).permute(1, 2, 0).numpy()
