"""Thumbnail: what a prompt looks for, as a small picture that its file can carry."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from incontext.images.image import resize_nearest
from incontext.inference.example import Example
from incontext.labels.color_mask import Rgb

HEIGHT, MOST = 96, 4  # pixels; examples shown
Thumbnail = np.ndarray[Any, np.dtype[np.uint8]]


def thumbnail(examples: Sequence[Example], colors: Mapping[int, Rgb]) -> Thumbnail:
    """The first examples side by side, ids in their colors: (96, w, 3) uint8."""
    return np.concatenate([_tile(example, colors) for example in examples[:MOST]], 1)


def _tile(example: Example, colors: Mapping[int, Rgb]) -> Thumbnail:
    """One picture with its labels at half strength, at most twice as wide as high."""
    width, height = example.image.size
    size = (max(1, min(2 * HEIGHT, round(width * HEIGHT / height))), HEIGHT)
    picture = example.image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    rgb = np.array(picture, np.uint8)
    ids = resize_nearest(example.labels.ids, size[::-1])
    for index, color in colors.items():
        inside = ids == index
        rgb[inside] = (rgb[inside].astype(int) + np.array(color)) // 2
    return rgb
