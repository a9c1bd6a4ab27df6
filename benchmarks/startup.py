"""Start-up time: of imports, of the command line's help, of a first result.

`python -m benchmarks.startup [--quick]`. Each run is a process of its own, alternating.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.common import (
    Work,
    add_quick,
    alternate,
    environment,
    heading,
    option_parser,
    ratio,
    row,
)


def main() -> None:
    """Print a row for each kind of start."""
    parser = option_parser(__doc__, rounds=9, threads=None)
    add_quick(parser, "Measure one round")
    options = parser.parse_args()
    rounds, warm_up = (1, 0) if options.quick else (options.rounds, 1)
    with tempfile.TemporaryDirectory() as name:
        works = _starts(Path(name), options.quick)
        times = alternate(works, rounds, warm_up)
    print(f"{environment()}\n")
    heading("start", "seconds", "÷ import torch")
    for name, timings in times.items():
        row(f"`{name}`", timings, ratio(timings, times["import torch"]))


def _starts(folder: Path, quick: bool) -> dict[str, Work]:
    """Return processes to time; their files lie in a folder."""
    pixels = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    Image.fromarray((pixels[..., 0] > 128).astype(np.uint8)).save(folder / "mask.png")
    command = [str(Path(sys.executable).with_name("incontext"))]
    segment = [*command, "segment", "a.png", "--out", "out", "--overwrite"]
    example, prompt = ["--example", "a.png", "mask.png"], ["--prompt", "p.safetensors"]
    works = {
        "python -c pass": _run([sys.executable, "-c", "pass"], folder),
        "import torch": _run([sys.executable, "-c", "import torch"], folder),
        "import torch; from incontext import Predictor": _run(
            [sys.executable, "-c", "import torch; from incontext import Predictor"], folder
        ),
        "incontext --help": _run([*command, "--help"], folder),
        "incontext segment, one picture": _run([*segment, *example], folder),
    }
    if quick:
        return works
    _run([*command, "prompt", *example, "--out", "p.safetensors"], folder)()
    onnx = ["--backend", "onnx"]
    _run([*segment, *example, *onnx], folder)()  # exports the graphs, if they are not there
    return works | {
        "incontext segment --prompt": _run([*segment, *prompt], folder),
        "incontext segment --backend onnx": _run([*segment, *example, *onnx], folder),
        "incontext segment --backend onnx --prompt": _run([*segment, *prompt, *onnx], folder),
    }


def _run(command: list[str], folder: Path) -> Work:
    return lambda: subprocess.run(command, check=True, cwd=folder, capture_output=True)


if __name__ == "__main__":
    main()
