"""What all benchmarks share: options, alternating timings, environment, tables, subprocesses."""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from incontext.checkpoints.checkpoint import save
from incontext.model import SIZES, SegGPT

Work = Callable[[], object]
CHECKPOINT = "incontext-small"  # that of the figures in README.md, unless it says otherwise

# What --quick measures instead: as `incontext-small`, but of a shape that takes no time.
TINY = replace(
    SIZES["small"], image_size=32, embed_dim=32, depth=2, num_heads=2, decoder_dim=16,
    position_grid=4, copy_heads=2, stem=(8, 16, 16), merge_after=0, taps=(0, 1),
)  # fmt: skip


class _Formatter(argparse.HelpFormatter):
    """Keeps the paragraphs of a description apart."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.strip().split("\n\n")
        return "\n\n".join(super(_Formatter, self)._fill_text(p, width, indent) for p in paragraphs)


def option_parser(
    description: str | None, rounds: int | None = None, threads: int | None = 2
) -> argparse.ArgumentParser:
    """Return a parser with the options that most benchmarks share.

    Args:
        rounds: default of --rounds; None: the benchmark has no such option.
        threads: default of --threads, likewise.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=_Formatter)
    if threads is not None:
        parser.add_argument(
            "--threads",
            type=int,
            default=threads,
            help="CPU threads of PyTorch. Default: %(default)s.",
        )
    if rounds is not None:
        parser.add_argument(
            "--rounds",
            type=int,
            default=rounds,
            help="Timed runs of each way. Default: %(default)s.",
        )
    return parser


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Add --checkpoint."""
    parser.add_argument(
        "--checkpoint", default=CHECKPOINT,
        help="Checkpoint: a bundled name, a folder, or a hub name. Default: %(default)s.",
    )  # fmt: skip


def add_quick(parser: argparse.ArgumentParser, effect: str) -> None:
    """Add --quick; `effect` says what it measures instead, in the imperative."""
    parser.add_argument(
        "--quick", action="store_true", help=f"{effect}, only to show that everything runs."
    )


@contextmanager
def quick_checkpoint(options: argparse.Namespace) -> Iterator[str]:
    """Yield the checkpoint to measure: with --quick a folder with a tiny model of random weights,
    unless --checkpoint names another than the default.
    """
    if not options.quick or options.checkpoint != CHECKPOINT:
        yield options.checkpoint
        return
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(prefix="incontext-quick-") as space:
        folder = Path(space) / "tiny"  # as tables name it
        save(SegGPT(TINY), folder)
        yield str(folder)


def environment(device: str = "cpu") -> str:
    """Describe in one line what the figures below it are measured with."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine()
    level = torch.backends.cpu.get_cpu_capability()
    return (
        f"{name}, {torch.get_num_threads()} threads, {level}, torch {torch.__version__}, "
        f"Python {platform.python_version()}"
    )


@dataclass(frozen=True)
class Timings:
    """Seconds of several runs."""

    seconds: list[float]

    @property
    def median(self) -> float:
        """Median of all runs."""
        return statistics.median(self.seconds)

    def __str__(self) -> str:
        scale, unit = (1, "s") if self.median >= 1 else (1000, "ms")
        low, high = min(self.seconds) * scale, max(self.seconds) * scale
        digits = 2 if self.median * scale < 10 else 1 if self.median * scale < 100 else 0
        return f"{self.median * scale:.{digits}f} {unit} ({low:.{digits}f}–{high:.{digits}f})"


def alternate(
    works: Mapping[str, Work], rounds: int, warm_up: int = 1, device: str = "cpu"
) -> dict[str, Timings]:
    """Run all works in turn, round after round, so that a busy machine slows them all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(warm_up + rounds):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if device.startswith("cuda"):
                torch.cuda.synchronize(device)
            if number >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return {name: Timings(values) for name, values in seconds.items()}


def ratio(slow: Timings, fast: Timings) -> str:
    """Format median and range of the paired ratios slow ÷ fast."""
    ratios = [a / b for a, b in zip(slow.seconds, fast.seconds, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


def peak() -> float:
    """Return the peak resident memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_own_process(module: str, *arguments: object) -> Any:
    """Run `python -m module arguments` and parse the last line that it prints, which is JSON."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    process = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(process.stdout.splitlines()[-1])


def heading(*cells: str) -> None:
    """Print a table's first two lines."""
    row(*cells)
    print("|" + "---|" * len(cells), flush=True)


def row(*cells: object) -> None:
    """Print one line of a table."""
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def numbers(text: str) -> Sequence[int]:
    """Parse whole numbers with commas: "1,4,8" → [1, 4, 8]."""
    return [int(part) for part in text.split(",")]
