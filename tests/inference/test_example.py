"""Example: what it shows of itself."""

import numpy as np
from PIL import Image

from incontext import Example, Predictor


def test_overlay_has_the_colors_of_the_results():
    labels = np.zeros((40, 60), np.uint8)
    labels[5:25, 10:30] = 3
    example = Example(np.full((40, 60, 3), 90, np.uint8), labels)
    colors = Predictor.from_pretrained().prompt(example).colors
    border, outside = example.overlay().getpixel((10, 5)), example.overlay().getpixel((0, 0))
    assert border == colors[3]
    assert outside == (90, 90, 90)


def test_overlay_keeps_the_palette_of_a_mask():
    ids = np.zeros((40, 60), np.uint8)
    ids[5:25, 10:30] = 1
    mask = Image.fromarray(ids)
    mask.putpalette([0, 0, 0, 12, 200, 34])
    picture = np.full((40, 60, 3), 90, np.uint8)
    assert Example(picture, mask).overlay().getpixel((10, 5)) == (12, 200, 34)
    assert Example(picture, mask).overlay(0).getpixel((20, 15)) == (90, 90, 90)
