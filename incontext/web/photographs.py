"""Photographs that scikit-image ships, with masks drawn here: the page opens with one.

Where the same drawing also gives the truth for the query, it comes along.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import binary_fill_holes
from skimage import color, data, filters, morphology, segmentation

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Scene:
    """An example with its mask and a query, with the truth for the query where it can be drawn."""

    name: str
    example: Array
    mask: Array
    query: Array
    truth: Array | None = None
    tile: int | None = None


def _halves(name: str, image: Array, mask: Array, border: int, axis: int) -> Scene:
    """Cut a photograph in two: one part is the example, the other the query."""
    example, query = np.split(image, [border], axis)
    example_mask, truth = np.split(mask, [border], axis)
    return Scene(name, example, example_mask, query, truth)


def _draw_mask(size: tuple[int, int], draw: Callable[[Any], None]) -> Array:
    """Draw a mask with Pillow, size (height, width)."""
    canvas = Image.new("1", size[::-1])
    draw(ImageDraw.Draw(canvas))
    return np.asarray(canvas)


def coins() -> Scene:
    """Show the coins of the upper two rows, ask for those of the lower two."""
    image = data.coins()
    seeds = np.where(image > 150, 2, np.where(image < 40, 1, 0))
    mask = segmentation.watershed(filters.sobel(image), seeds) == 2
    mask[:, :8], mask[:, -6:], mask[:8] = False, False, False  # the bright frame
    mask = morphology.opening(binary_fill_holes(mask), morphology.disk(6))
    return _halves("coins", image, mask, 148, 0)


def eyes() -> Scene:
    """Show one eye of a cat, ask for the other."""
    image = data.chelsea()

    def draw(pen: Any) -> None:
        pen.ellipse((134, 84, 210, 150), fill=1)
        pen.ellipse((296, 108, 341, 166), fill=1)

    return _halves("eyes", image, _draw_mask(image.shape[:2], draw), 255, 1)


def galaxies() -> Scene:
    """Show the bright galaxies in a corner of Hubble's deep field, ask for those of one half."""
    image = data.hubble_deep_field()[:872, :872]
    mask = filters.gaussian(color.rgb2gray(image), 3) > 0.2
    corner = image[:218, :218], mask[:218, :218]
    return Scene("galaxies", *corner, image[:, 436:], mask[:, 436:], tile=218)


def glands() -> Scene:
    """Show the brown glands in the left half of stained tissue, ask for those in the right."""
    image = data.immunohistochemistry()
    stain = filters.gaussian(color.rgb2hed(image)[..., 2], 6)
    return _halves("glands", image, stain > filters.threshold_otsu(stain), 256, 1)


def motorcycle() -> Scene:
    """Show a motorcycle from one viewpoint, ask for it from another."""
    example, query, _ = data.stereo_motorcycle()

    def draw(pen: Any) -> None:
        pen.ellipse((120, 232, 274, 402), fill=1)
        pen.ellipse((504, 268, 694, 454), fill=1)
        outline = [(98, 202), (150, 158), (240, 200), (352, 196), (445, 175), (490, 80), (580, 130),
                   (545, 185), (640, 300), (600, 380), (500, 300), (480, 340), (370, 385),
                   (230, 350), (150, 270)]  # fmt: skip
        pen.polygon(outline, fill=1)

    return Scene("motorcycle", example, _draw_mask(example.shape[:2], draw), query)


def absent() -> Scene:
    """Ask for the cat's eye in a portrait without a cat: the mask has to be empty."""
    return replace(eyes(), name="absent", query=data.astronaut(), truth=None)
