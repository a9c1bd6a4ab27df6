"""A 4K picture whole and in tiles.

`python -m benchmarks.tiling [--quick] [--checkpoint NAME]`. 3840×2160 pixels in memory, one
example, whole calls.
"""

import argparse
from functools import partial

import numpy as np
import torch

from benchmarks.common import CHECKPOINT, alternate, environment, heading, row
from benchmarks.query import picture
from incontext import Predictor
from incontext.images.tiles import Tiling


def main() -> None:
    """Print a row for each size of the tiles."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default=CHECKPOINT)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="large tiles only, one round")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    predictor = Predictor.from_pretrained(options.checkpoint)
    prompt = predictor.prompt(picture(0))
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
        taken = times[str(tile)]
        count = len(Tiling(width, height, tile).boxes()) if tile else 1
        row(tile or "whole", count, taken, f"{1000 * taken.median / count:.0f} ms")


if __name__ == "__main__":
    main()
