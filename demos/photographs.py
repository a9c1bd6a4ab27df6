"""Segmentation by example on real photographs, offline, with the bundled checkpoint.

`python -m demos.photographs OUT`. The photographs ship with scikit-image; the example masks are
drawn here. Where the same drawing also gives the truth for the query, the IoU is printed.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import binary_fill_holes
from skimage import color, data, filters, morphology, segmentation

from incontext import Example, Predictor

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


# CC0 or public domain: the pictures of the documentation are made of these.
FREE_SCENES = ("eyes", "galaxies", "absent")
SCENES = (coins, eyes, galaxies, glands, motorcycle, absent)


def panel(scene: Scene, result: Image.Image, height: int = 240) -> Image.Image:
    """Put the example with its mask, the query and the result side by side."""
    example = np.array(Image.fromarray(scene.example).convert("RGB"))
    example[scene.mask] = example[scene.mask] // 2 + np.array([0, 64, 127], np.uint8)
    images = [Image.fromarray(example), Image.fromarray(scene.query).convert("RGB"), result]
    images = [i.resize((round(i.width * height / i.height), height)) for i in images]
    row = Image.new("RGB", (sum(i.width for i in images) + 16, height), "white")
    x = 0
    for image in images:
        row.paste(image, (x, 0))
        x += image.width + 8
    return row


def main(out: Path) -> None:
    """Segment every scene and write its labels, confidence, overlay and panel."""
    start = time.perf_counter()
    predictor = Predictor.from_pretrained()
    for make in SCENES:
        scene = make()
        prompt = predictor.prompt(Example(scene.example, scene.mask))
        result = predictor.predict(scene.query, prompt, tile=scene.tile)
        result.save(out, scene.name)
        row = panel(scene, result.overlay())
        row.save(out / f"{scene.name}.panel.jpg", quality=90)
        line = f"{scene.name:<12}presence {result.presence[1]:.2f}"
        if scene.truth is not None:
            intersection = (result.mask(1) & scene.truth).sum()
            line += f"  IoU {intersection / (result.mask(1) | scene.truth).sum():.2f}"
        print(line)
    print(f"{len(SCENES)} photographs in {time.perf_counter() - start:.1f} s; overlays:")
    for path in sorted(out.glob("*.overlay.jpg")):
        print(f"  {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("out/demo"))
