"""What segmenting very many pictures costs, and that no kill loses or doubles one.

`python -m benchmarks.scale kill`: 2 000 pictures on Ray; a worker is killed at a quarter,
everything at half, the same command goes on. Exit code 0 where each picture has exactly one entry
and the very files that a plain run writes.

`python -m benchmarks.scale rates [--quick]`: pictures a second of each step, and what millions
of them cost.
"""

import argparse
import sys

from benchmarks import scale_kill, scale_rates


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["kill", "rates", "memory"])
    parser.add_argument("--pictures", type=int, default=0, help="how many (kill: 2000)")
    parser.add_argument("--sample", type=int, default=200, help="compared with a plain run (kill)")
    parser.add_argument("--quick", action="store_true", help="says that everything runs (rates)")
    options = parser.parse_args()
    if options.what == "kill":
        sys.exit(scale_kill.main(options.pictures or 2000, options.sample))
    if options.what == "memory":
        scale_rates.memory(options.pictures or 100_000)
    else:
        scale_rates.main(options.quick)


if __name__ == "__main__":
    main()
