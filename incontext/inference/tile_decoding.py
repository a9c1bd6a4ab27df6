"""Tiles: an image painted piece by piece in its own size, its answers blended.

A coarse pass, if asked for, sees several tiles at once. Tiles in which it sees nothing are not
painted again: they take their part of its answer, so that confidence, presence and quality say what
the model was sure of, and no more.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from PIL import Image

from incontext.errors import InputError, check_count
from incontext.images.blend import Blend, upsample_rows
from incontext.images.data_mask import data_mask
from incontext.images.tiles import Box, Tiling
from incontext.inference.decoding import Answer, Reading, to_pixels, to_segmentation
from incontext.inference.prompt import Prompt
from incontext.inference.segmentation import Segmentation

Ask = Callable[[list[Image.Image]], list[Answer]]

BLOCK = 3  # tiles along each side of a block, which a coarse pass sees at once
EMPTY = 0.05  # probability of an id, below which a coarse answer shows nothing
MARGIN = 2  # cells of a coarse answer around a tile, in which it must show nothing either


def check_tile(tile: int | None, skip_empty: bool) -> None:
    """Raise InputError unless the side of tiles is a count, and there are tiles to skip."""
    check_count("tile", tile)
    if skip_empty and tile is None:
        raise InputError("skip_empty without tile; accepted: both")


def decode_tiles(
    image: Image.Image,
    prompt: Prompt,
    tile: int,
    batch_size: int,
    ask: Ask,
    reading: Reading,
    skip_below: float = 0.0,
) -> Segmentation:
    """Paint and read an image tile by tile, in its own size; probabilities are blended.

    Args:
        ask: asks the model about some images.
        skip_below: tiles are not painted if a coarse pass gives no id this probability there; 0:
            all are, and there is no coarse pass.
    """
    tiling = Tiling(image.width, image.height, tile)
    blend = Blend(1 + len(prompt.ids), image.width, image.height)
    id_presence = torch.zeros(len(prompt.ids))
    pixels = np.zeros((image.height, image.width, 3), np.uint8)
    mask, scales = data_mask(image), None
    for box, answer in _answer_tiles(image, tiling, batch_size, ask, skip_below):
        left, top, right, bottom = box
        size, scales = (bottom - top, right - left), answer.scales
        # At the model's size, as for a whole image: an object fills its tile as much as it
        # would fill a small image.
        tile_mask = None if mask is None else mask[top:bottom, left:right]
        id_presence = torch.maximum(id_presence, answer.presence(tile_mask))
        for rows, values in upsample_rows(answer.probabilities, size):
            blend.add(box, rows, values)
        small = Image.fromarray(to_pixels(answer.paintings[0]))
        resized = small.resize(size[::-1], Image.Resampling.NEAREST)
        pixels[top:bottom, left:right] = np.asarray(resized)
    whole = Answer(blend.result(), scales, ())
    return to_segmentation(image, prompt, whole, id_presence, [pixels], reading)


def _answer_tiles(
    image: Image.Image, tiling: Tiling, batch_size: int, ask: Ask, skip_below: float
) -> Iterator[tuple[Box, Answer]]:
    """Yield all tiles with their answers, those that are skipped first."""
    boxes = tiling.boxes()
    if skip_below > 0 and len(boxes) > 1:
        empty_tiles = dict(_find_empty_tiles(image, tiling, batch_size, ask, skip_below))
        yield from empty_tiles.items()
        boxes = [box for box in boxes if box not in empty_tiles]
    yield from _ask_boxes(image, boxes, batch_size, ask)


def _ask_boxes(
    image: Image.Image, boxes: Sequence[Box], batch_size: int, ask: Ask
) -> Iterator[tuple[Box, Answer]]:
    """Yield parts of an image with the model's answers, asked batch by batch."""
    remaining = iter(boxes)
    while batch := list(islice(remaining, batch_size)):
        yield from zip(batch, ask([image.crop(box) for box in batch]), strict=True)


def _find_empty_tiles(
    image: Image.Image, tiling: Tiling, batch_size: int, ask: Ask, skip_below: float
) -> Iterator[tuple[Box, Answer]]:
    """Yield the tiles in which a coarse pass shows nothing, with their parts of its answers."""
    blocks = group_tiles(tiling)
    for block, answer in _ask_boxes(image, list(blocks), batch_size, ask):
        for box in blocks[block]:
            vicinity = crop_answer(answer, block, box, MARGIN)
            if float(vicinity.probabilities[1:].max()) < skip_below:
                yield box, crop_answer(answer, block, box)


def group_tiles(tiling: Tiling) -> dict[Box, list[Box]]:
    """Return blocks of up to `BLOCK` × `BLOCK` neighboring tiles, by the box around each."""
    boxes = tiling.boxes()
    columns = len({box[0] for box in boxes})
    blocks: dict[tuple[int, int], list[Box]] = {}
    for number, box in enumerate(boxes):
        row, column = divmod(number, columns)
        blocks.setdefault((row // BLOCK, column // BLOCK), []).append(box)
    # The first tile is that of the upper left corner, the last that of the lower right one.
    return {(*tiles[0][:2], *tiles[-1][2:]): tiles for tiles in blocks.values()}


def crop_answer(answer: Answer, outer: Box, box: Box, margin: int = 0) -> Answer:
    """Cut an answer about the box `outer` to a box inside it.

    Args:
        margin: in cells of the answer, beyond those that the box touches.
    """
    height, width = answer.probabilities.shape[1:]
    columns = _cells(outer[0], outer[2], box[0], box[2], width, margin)
    rows = _cells(outer[1], outer[3], box[1], box[3], height, margin)
    paintings = [painting[:, rows, columns] for painting in answer.paintings]
    return Answer(answer.probabilities[:, rows, columns], answer.scales, paintings)


def _cells(start: int, stop: int, low: int, high: int, count: int, margin: int) -> slice:
    """Return which of `count` cells between start and stop touch low … high, and a margin."""
    scale = count / (stop - start)
    first, last = math.floor((low - start) * scale), math.ceil((high - start) * scale)
    return slice(max(0, first - margin), min(count, last + margin))
