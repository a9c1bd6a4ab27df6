"""SegGPT's spatial ensemble: several examples as one, side by side on a grid (section 3.3)."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from incontext import Example
from incontext.images.image import resize_nearest
from incontext.labels.color_mask import Rgb
from incontext.labels.encodings import Labels


def spatial_grid(examples: Sequence[Example], size: int) -> Example:
    """Join N examples on an n × n grid, n = ⌈√N⌉, that is `size` pixels wide and high.

    Spare cells repeat the first examples. Images are shrunk bicubic, labels nearest, as the
    official code shrinks canvases.
    """
    side = math.ceil(math.sqrt(len(examples)))
    edges = np.linspace(0, size, side + 1).round().astype(int)
    grid = Image.new("RGB", (size, size))
    ids = np.zeros((size, size), np.int32)
    colors: dict[int, Rgb] = {}
    for cell in range(side * side):
        example = examples[cell % len(examples)]
        row, column = divmod(cell, side)
        top, bottom, left, right = edges[[row, row + 1, column, column + 1]].tolist()
        part = example.image.resize((right - left, bottom - top), Image.Resampling.BICUBIC)
        grid.paste(part, (left, top))
        ids[top:bottom, left:right] = resize_nearest(
            example.labels.ids, (bottom - top, right - left)
        )
        colors |= example.labels.colors
    return Example.from_labels(grid, Labels(ids, colors))
