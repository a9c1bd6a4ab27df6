"""Tiles: an image painted piece by piece in its own size, its answers blended."""

from collections.abc import Callable
from itertools import islice

import numpy as np
import torch
from PIL import Image

from incontext.images.data_mask import data_mask
from incontext.images.tiles import Blend, Tiling, upsample_rows
from incontext.inference.decoding import Answer, Reading, to_pixels, to_segmentation
from incontext.inference.prompt import Prompt
from incontext.inference.segmentation import Segmentation


def decode_tiles(
    image: Image.Image,
    prompt: Prompt,
    tile: int,
    batch_size: int,
    answer: Callable[[list[Image.Image]], list[Answer]],
    reading: Reading,
) -> Segmentation:
    """Paint and read an image tile by tile, in its own size; probabilities are blended.

    Args:
        answer: asks the model about some images.
    """
    tiling = Tiling(image.width, image.height, tile)
    blend = Blend(1 + len(prompt.ids), image.width, image.height)
    id_presence = torch.zeros(len(prompt.ids))
    pixels = np.zeros((image.height, image.width, 3), np.uint8)
    boxes, mask, scales = iter(tiling.boxes()), data_mask(image), None
    while batch := list(islice(boxes, batch_size)):
        tile_answers = answer([image.crop(box) for box in batch])
        for box, tile_answer in zip(batch, tile_answers, strict=True):
            left, top, right, bottom = box
            size, scales = (bottom - top, right - left), tile_answer.scales
            # At the model's size, as for a whole image: an object fills its tile as much as it
            # would fill a small image.
            tile_mask = None if mask is None else mask[top:bottom, left:right]
            id_presence = torch.maximum(id_presence, tile_answer.presence(tile_mask))
            for rows, values in upsample_rows(tile_answer.probabilities, size):
                blend.add(box, rows, values)
            small = Image.fromarray(to_pixels(tile_answer.paintings[0]))
            resized = small.resize(size[::-1], Image.Resampling.NEAREST)
            pixels[top:bottom, left:right] = np.asarray(resized)
    whole = Answer(blend.result(), scales, ())
    return to_segmentation(image, prompt, whole, id_presence, [pixels], reading)
