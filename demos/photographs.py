"""The main job on real photographs: segment by example, offline, with the bundled checkpoint.

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
    """An example with its mask, a query, and where it can be drawn the truth for the query."""

    name: str
    example: Array
    mask: Array
    query: Array
    truth: Array | None = None
    tile: int | None = None


def _halves(name: str, picture: Array, mask: Array, cut: int, axis: int) -> Scene:
    """One part of a photograph as the example, the other as the query."""
    first, second = np.split(picture, [cut], axis)
    shown, truth = np.split(mask, [cut], axis)
    return Scene(name, first, shown, second, truth)


def _drawn(size: tuple[int, int], draw: Callable[[Any], None]) -> Array:
    """A mask drawn with Pillow on (height, width)."""
    canvas = Image.new("1", size[::-1])
    draw(ImageDraw.Draw(canvas))
    return np.asarray(canvas)


def coins() -> Scene:
    """Coins: the upper two rows show what a coin is, the lower two are asked for."""
    picture = data.coins()
    sure = np.where(picture > 150, 2, np.where(picture < 40, 1, 0))
    grown = segmentation.watershed(filters.sobel(picture), sure) == 2
    grown[:, :8], grown[:, -6:], grown[:8] = False, False, False  # the bright frame
    whole = morphology.opening(binary_fill_holes(grown), morphology.disk(6))
    return _halves("coins", picture, whole, 148, 0)


def eyes() -> Scene:
    """A cat: one eye is shown, the other is asked for."""
    picture = data.chelsea()

    def draw(pen: Any) -> None:
        pen.ellipse((134, 84, 210, 150), fill=1)
        pen.ellipse((296, 108, 341, 166), fill=1)

    return _halves("eyes", picture, _drawn(picture.shape[:2], draw), 255, 1)


def galaxies() -> Scene:
    """Hubble's deep field: bright galaxies in one corner, then, tile by tile, in the other half."""
    picture = data.hubble_deep_field()[:872, :872]
    bright = filters.gaussian(color.rgb2gray(picture), 3) > 0.2
    corner = picture[:218, :218], bright[:218, :218]
    return Scene("galaxies", *corner, picture[:, 436:], bright[:, 436:], tile=218)


def glands() -> Scene:
    """Stained tissue: brown glands of the left half, then of the right."""
    picture = data.immunohistochemistry()
    stain = filters.gaussian(color.rgb2hed(picture)[..., 2], 6)
    return _halves("glands", picture, stain > filters.threshold_otsu(stain), 256, 1)


def motorcycle() -> Scene:
    """A motorcycle, shown from one place and asked for from another."""
    left, right, _ = data.stereo_motorcycle()

    def draw(pen: Any) -> None:
        pen.ellipse((120, 232, 274, 402), fill=1)
        pen.ellipse((504, 268, 694, 454), fill=1)
        outline = [(98, 202), (150, 158), (240, 200), (352, 196), (445, 175), (490, 80), (580, 130),
                   (545, 185), (640, 300), (600, 380), (500, 300), (480, 340), (370, 385),
                   (230, 350), (150, 270)]  # fmt: skip
        pen.polygon(outline, fill=1)

    return Scene("motorcycle", left, _drawn(left.shape[:2], draw), right)


def absent() -> Scene:
    """The cat's eye, asked for in a portrait that shows no cat: the answer goes wrong."""
    return replace(eyes(), name="absent", query=data.astronaut(), truth=None)


# CC0 or public domain: their results may be shown anywhere.
FREE = ("eyes", "galaxies")
SCENES = (coins, eyes, galaxies, glands, motorcycle, absent)


def panel(scene: Scene, result: Image.Image, height: int = 240) -> Image.Image:
    """Example with its mask, query and result side by side."""
    shown = np.array(Image.fromarray(scene.example).convert("RGB"))
    shown[scene.mask] = shown[scene.mask] // 2 + np.array([0, 64, 127], np.uint8)
    pictures = [Image.fromarray(shown), Image.fromarray(scene.query).convert("RGB"), result]
    scaled = [p.resize((round(p.width * height / p.height), height)) for p in pictures]
    row = Image.new("RGB", (sum(p.width for p in scaled) + 16, height), "white")
    at = 0
    for part in scaled:
        row.paste(part, (at, 0))
        at += part.width + 8
    return row


def main(out: Path) -> None:
    """Segment every scene and write its labels, confidence, overlay and panel."""
    start = time.perf_counter()
    rows = []
    predictor = Predictor.from_pretrained()
    for make in SCENES:
        scene = make()
        prompt = predictor.prompt(Example(scene.example, scene.mask))
        result = predictor.predict(scene.query, prompt, tile=scene.tile)
        result.save(out, scene.name)
        row = panel(scene, result.overlay())
        row.save(out / f"{scene.name}.panel.jpg", quality=90)
        if scene.name in FREE:
            rows.append(row)
        line = f"{scene.name:<12}presence {result.presence[1]:.2f}"
        if scene.truth is not None:
            both = (result.mask(1) & scene.truth).sum()
            line += f"  IoU {both / (result.mask(1) | scene.truth).sum():.2f}"
        print(line)
    figure = Image.new("RGB", (sum(r.width + 24 for r in rows) - 24, rows[0].height), "white")
    for index, row in enumerate(rows):
        figure.paste(row, (sum(r.width + 24 for r in rows[:index]), 0))
    figure.save(out / "demo.jpg", quality=90)
    print(f"{len(SCENES)} photographs in {time.perf_counter() - start:.1f} s; overlays:")
    for path in sorted(out.glob("*.overlay.jpg")):
        print(f"  {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("out/demo"))
