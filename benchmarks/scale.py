"""The cost of segmenting millions of images, and a test that no kill loses or doubles one.

`python -m benchmarks.scale kill`: 2 000 images on Ray. A worker is killed at a quarter, everything
at half, then the same command goes on. The exit code is 0 if each image has exactly one entry and
the very files that a plain run writes.

`python -m benchmarks.scale rates [--quick]`: images a second of each step, and the cost of millions
of images.
"""

import sys

from benchmarks import scale_kill, scale_rates
from benchmarks.common import add_checkpoint, add_quick, option_parser, quick_checkpoint


def main() -> None:
    """Run one of the two."""
    parser = option_parser(__doc__, threads=None)
    parser.add_argument(
        "command", choices=["kill", "rates", "memory"],
        help="What to run; memory is the part of rates that runs as its own process.",
    )  # fmt: skip
    parser.add_argument(
        "--pictures", type=int, default=0,
        help="Number of images for kill (2000) or of entries for memory (100000).",
    )  # fmt: skip
    parser.add_argument(
        "--sample", type=int, default=200,
        help="Number of images that kill compares with a plain run. Default: %(default)s.",
    )  # fmt: skip
    add_checkpoint(parser)
    add_quick(parser, "Let rates measure a tiny model on few images")
    options = parser.parse_args()
    if options.command == "kill":
        sys.exit(scale_kill.main(options.pictures or 2000, options.sample))
    if options.command == "memory":
        scale_rates.memory(options.checkpoint, options.pictures or 100_000)
    else:
        with quick_checkpoint(options) as checkpoint:
            scale_rates.main(checkpoint, options.quick)


if __name__ == "__main__":
    main()
