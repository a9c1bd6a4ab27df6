"""Start-up time: of imports, of the command line's help, of a first result.

`python -m benchmarks.startup [--quick]`. Each run is a process of its own, alternating.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.common import Work, add_quick, alternate, environment, heading, option_parser, row


def main() -> None:
    """Print a row for each kind of start."""
    parser = option_parser(__doc__, rounds=9, threads=None)
    add_quick(parser, "Measure one round")
    options = parser.parse_args()
    rounds, warm_up = (1, 0) if options.quick else (options.rounds, 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pixels = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "a.png")
        Image.fromarray((pixels[..., 0] > 128).astype(np.uint8)).save(folder / "mask.png")
        command = [str(Path(sys.executable).with_name("incontext"))]
        segment = [*command, "segment", "a.png", "--example", "a.png", "mask.png", "--out", "out",
                   "--overwrite"]  # fmt: skip
        works = {
            "python -c pass": _run([sys.executable, "-c", "pass"], folder),
            "import torch": _run([sys.executable, "-c", "import torch"], folder),
            "import torch, incontext": _run(
                [sys.executable, "-c", "import torch, incontext"], folder
            ),
            "import torch; from incontext import Predictor": _run(
                [sys.executable, "-c", "import torch; from incontext import Predictor"], folder
            ),
            "incontext --help": _run([*command, "--help"], folder),
            "incontext segment, one picture": _run(segment, folder),
        }
        times = alternate(works, rounds, warm_up)
    print(f"{environment()}\n")
    heading("start", "seconds", "beyond import torch")
    base = times["import torch"].median
    for name, timings in times.items():
        difference = f"{timings.median - base:.2f} s" if name.startswith("import torch") else ""
        row(f"`{name}`", timings, difference)


def _run(command: list[str], folder: Path) -> Work:
    return lambda: subprocess.run(command, check=True, cwd=folder, capture_output=True)


if __name__ == "__main__":
    main()
