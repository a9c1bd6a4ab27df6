"""A 4K image whole and in tiles.

`python -m benchmarks.tiling [--quick] [--checkpoint NAME]`. 3840×2160 pixels in memory, one
example, whole calls.
"""

from functools import partial

import numpy as np
import torch

from benchmarks.common import (
    add_checkpoint,
    add_quick,
    alternate,
    environment,
    heading,
    option_parser,
    row,
)
from benchmarks.query import draw_example
from incontext import Predictor
from incontext.images.tiles import Tiling


def main() -> None:
    """Print a row for each size of the tiles."""
    parser = option_parser(__doc__, rounds=3)
    add_checkpoint(parser)
    add_quick(parser, "Measure large tiles and one round")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    predictor = Predictor.from_pretrained(options.checkpoint)
    prompt = predictor.prompt(draw_example(0))
    width, height = 3840, 2160
    query = np.random.default_rng(1).integers(0, 255, (height, width, 3), np.uint8)
    tiles = [None, 1024] if options.quick else [None, 1024, 640, 320]
    times = alternate(
        {str(t): partial(predictor.predict, query, prompt, tile=t) for t in tiles},
        1 if options.quick else options.rounds, 0 if options.quick else 1,
    )  # fmt: skip
    print(f"{environment()}, {options.checkpoint}, {width}×{height}\n")
    heading("tile", "tiles", "a picture", "a tile")
    for tile in tiles:
        timings = times[str(tile)]
        count = len(Tiling(width, height, tile).boxes()) if tile else 1
        row(tile or "whole", count, timings, f"{1000 * timings.median / count:.0f} ms")


if __name__ == "__main__":
    main()
