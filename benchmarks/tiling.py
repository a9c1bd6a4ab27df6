"""A 4K image whole and in tiles, and what it gains and costs to skip tiles of empty ground.

`python -m benchmarks.tiling [--quick] [--checkpoint NAME]`. 3840×2160 pixels in memory, a lawn with
some coins on it; one example, whole calls. The second table has coins of several sizes: with the
time, what of the result of all tiles is kept (IoU), and how well both fit the truth.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from skimage import data, measure

from benchmarks.common import (
    add_checkpoint,
    add_quick,
    alternate,
    environment,
    heading,
    numbers,
    option_parser,
    quick_checkpoint,
    ratio,
    row,
)
from incontext import Example, Predictor, Prompt
from incontext.checkpoints.checkpoint import load
from incontext.checkpoints.location import display_name
from incontext.inference.decoding import Answer
from incontext.web.photographs import coins

Array = np.ndarray[Any, np.dtype[Any]]
Size = tuple[int, int]  # height and width
COIN = 50  # pixels across, in the first table
SIDE = 320  # of the example, and of tiles that may be skipped
SKIPPING = f"{SIDE}, empty skipped"


class CountingPredictor(Predictor):
    """A predictor that counts the images that its model sees."""

    count = 0

    def answer(self, images: Sequence[Image.Image], *args: Any, **options: Any) -> list[Answer]:
        """Ask the model as `Predictor.answer` does."""
        self.count += len(images)
        return super().answer(images, *args, **options)

    def count_images(self, image: Array, prompt: Prompt, **options: Any) -> tuple[int, Array]:
        """Return how many images the model sees for a result, and its mask."""
        self.count = 0
        result = self.predict(image, prompt, **options)
        return self.count, result.mask(1)


def lawn_with_coins(size: Size, count: int, across: int, seed: int) -> tuple[Array, Array]:
    """Compose a lawn of mirrored photographs with coins at random places; return it and its mask.

    Args:
        across: diameter of a coin in pixels, which varies by a quarter.
    """
    rng = np.random.default_rng(seed)
    lawn, scene = data.grass(), coins()
    lawn = np.pad(lawn, [(0, max(0, side - 512)) for side in size], "symmetric")
    pixels, truth = lawn[: size[0], : size[1], None].repeat(3, 2).copy(), np.zeros(size, bool)
    pixels[..., ::2] = pixels[..., ::2] // 4 * 3  # green
    boxes = [part.bbox for part in measure.regionprops(measure.label(scene.mask))]
    for number in rng.integers(len(boxes), size=count):
        top, left, bottom, right = boxes[number]
        side = round(across * rng.uniform(0.8, 1.25))
        parts = [part[top:bottom, left:right] for part in (scene.example, scene.mask)]
        coin, mask = (np.asarray(Image.fromarray(part).resize((side, side))) for part in parts)
        y, x = rng.integers(size[0] - side), rng.integers(size[1] - side)
        pixels[y : y + side, x : x + side][mask] = coin[mask][:, None]
        truth[y : y + side, x : x + side] |= mask
    return pixels, truth


def main() -> None:
    """Print both tables."""
    parser = option_parser(__doc__, rounds=3)
    add_checkpoint(parser)
    parser.add_argument(
        "--coins", type=int, default=12, help="Coins on the lawn. Default: %(default)s."
    )
    parser.add_argument(
        "--across", default="100,50,25",
        help="Their sizes in pixels, for the second table, with commas. Default: %(default)s.",
    )  # fmt: skip
    add_quick(parser, "Measure a tiny model, a small image, large tiles and one round")
    options = parser.parse_args()
    size, tiles = (2160, 3840), [None, 1024, 640, SIDE]
    if options.quick:
        size, tiles, options.rounds, options.across = (540, 960), [None, SIDE], 1, "100"
    torch.set_num_threads(options.threads)
    with quick_checkpoint(options) as checkpoint:
        predictor = CountingPredictor(load(checkpoint))
    print(f"{environment()}, {display_name(checkpoint)}, {size[1]}×{size[0]}\n")
    _compare_tiles(predictor, size, tiles, options)
    print()
    _compare_sizes(predictor, size, options)


def _compare_tiles(
    predictor: CountingPredictor, size: Size, tiles: list[int | None], options: argparse.Namespace
) -> None:
    """Print a row for each size of tiles, and one with empty ones skipped."""
    prompt, image, _ = compose_task(predictor, size, options.coins, COIN)
    ways: dict[str, dict[str, Any]] = {str(tile or "whole"): {"tile": tile} for tile in tiles}
    ways[SKIPPING] = {"tile": SIDE, "skip_empty": True}
    counts = dict.fromkeys(ways, 0)

    def predict(name: str) -> None:
        counts[name], _ = predictor.count_images(image, prompt, **ways[name])

    predict("whole")  # to warm up
    works = {name: partial(predict, name) for name in ways}
    times = alternate(works, options.rounds, warm_up=0)
    heading("tile", "asked", "a picture", f"÷ {SIDE}")
    for name, count in counts.items():
        row(name, count, times[name], ratio(times[name], times[str(SIDE)]))


def _compare_sizes(predictor: CountingPredictor, size: Size, options: argparse.Namespace) -> None:
    """Print a row for coins of each size: what skipping loses."""
    heading("pixels across", "asked of all tiles", "asked, empty skipped", "IoU of the two",
            "IoU with the truth, all tiles", "empty skipped")  # fmt: skip
    for across in numbers(options.across):
        prompt, image, truth = compose_task(predictor, size, options.coins, across)
        count, mask = predictor.count_images(image, prompt, tile=SIDE)
        asked_count, skipping_mask = predictor.count_images(
            image, prompt, tile=SIDE, skip_empty=True
        )
        pairs = ((mask, skipping_mask), (mask, truth), (skipping_mask, truth))
        row(across, count, asked_count, *(f"{iou(*pair):.3f}" for pair in pairs))


def compose_task(
    predictor: Predictor, size: Size, count: int, across: int
) -> tuple[Prompt, Array, Array]:
    """Return a prompt of one coin on a lawn, a query with many, and its true mask."""
    prompt = predictor.prompt(Example(*lawn_with_coins((SIDE, SIDE), 1, across, 0)))
    return prompt, *lawn_with_coins(size, count, across, 1)


def iou(first: Array, second: Array) -> float:
    """Return the overlap of two masks, 1 if both are empty."""
    union = float((first | second).sum())
    return float((first & second).sum()) / union if union else 1.0


if __name__ == "__main__":
    main()
