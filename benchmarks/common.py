"""What all benchmarks share: alternating timings, environment, tables, processes of their own."""

import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

Work = Callable[[], object]
CHECKPOINT = "incontext-small"  # whose figures README.md has, unless it says otherwise


def environment(device: str = "cpu") -> str:
    """One line: what the figures below it were measured with."""
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
        """Of all runs."""
        return statistics.median(self.seconds)

    def __str__(self) -> str:
        scale, unit = (1, "s") if self.median >= 1 else (1000, "ms")
        low, high = min(self.seconds) * scale, max(self.seconds) * scale
        digits = 2 if self.median * scale < 10 else 1 if self.median * scale < 100 else 0
        return f"{self.median * scale:.{digits}f} {unit} ({low:.{digits}f}–{high:.{digits}f})"


def alternate(
    works: Mapping[str, Work], rounds: int, warm_up: int = 1, device: str = "cpu"
) -> dict[str, Timings]:
    """Run all works in turn, round after round: what disturbs the machine meets them all."""
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
    """Median and range of the paired ratios slow ÷ fast."""
    ratios = [a / b for a, b in zip(slow.seconds, fast.seconds, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


def peak() -> float:
    """Peak resident memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_own_process(module: str, *arguments: object) -> Any:
    """What `python -m module arguments` prints last, which is JSON."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def heading(*cells: str) -> None:
    """Print a table's first two lines."""
    row(*cells)
    print("|" + "---|" * len(cells), flush=True)


def row(*cells: object) -> None:
    """Print one line of a table."""
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def numbers(text: str) -> Sequence[int]:
    """ "1,4,8" → [1, 4, 8]."""
    return [int(part) for part in text.split(",")]
