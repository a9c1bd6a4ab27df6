"""Run all benchmarks, one after the other; each is also a command, `python -m benchmarks.NAME`.

`python -m benchmarks.demo` needs the demo's extra and `python -m benchmarks.scale kill` takes long,
so they are commands only.
"""

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from benchmarks.common import add_quick

QUICK = ["--quick", "--threads", "1"]
# By name: arguments, and arguments for --quick, those that take longest first.
BENCHMARKS: dict[str, tuple[list[str], list[str]]] = {
    "scale": (["rates"], ["rates", "--quick"]),
    "startup": ([], ["--quick"]),
    "memory": ([], [*QUICK, "--ours", "1", "--theirs", "1", "--spilled", "8"]),
    "onnx": ([], ["--quick"]),
    "video": ([], QUICK),
    "port": ([], [*QUICK, "--examples", "1,4", "--rounds", "1"]),
    "query": ([], QUICK),
    "batches": ([], QUICK),
    "tiling": ([], QUICK),
    "attention": ([], QUICK),
}
Command = list[str]


def main() -> None:
    """Run the benchmarks as subprocesses."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add_quick(parser, "Measure tiny models, two commands at a time")
    options = parser.parse_args()
    commands = [
        [f"benchmarks.{name}", *(small if options.quick else full)]
        for name, (full, small) in BENCHMARKS.items()
    ]
    if options.quick:
        run_in_pairs(commands)
        return
    for command in commands:
        print_title(command)
        subprocess.run([sys.executable, "-m", *command], check=True)


def run_in_pairs(commands: list[Command]) -> None:
    """Run two commands at a time, which their figures would suffer from; print them in order."""

    def run(command: Command) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *command], check=False, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    with ThreadPoolExecutor(2) as pool:
        for command, process in zip(commands, pool.map(run, commands), strict=True):
            print_title(command)
            print(process.stdout, flush=True)
            process.check_returncode()


def print_title(command: Command) -> None:
    """Print the command as a heading."""
    print(f"\n## python -m {' '.join(command)}\n", flush=True)


if __name__ == "__main__":
    main()
