"""Run all benchmarks, one after the other; each is also a command, `python -m benchmarks.NAME`.

`python -m benchmarks.demo` needs the demo's extra and `python -m benchmarks.scale kill` takes long,
so they are commands only.
"""

import argparse
import subprocess
import sys

from benchmarks.common import add_quick

# By name: arguments, and arguments for --quick.
BENCHMARKS: dict[str, tuple[list[str], list[str]]] = {
    "port": ([], ["--quick", "--examples", "1,4", "--rounds", "2"]),
    "memory": ([], ["--quick", "--ours", "1,8", "--theirs", "1", "--spilled", "8"]),
    "query": ([], ["--quick"]),
    "batches": ([], ["--quick"]),
    "startup": ([], ["--quick"]),
    "tiling": ([], ["--quick"]),
    "video": ([], ["--quick"]),
    "attention": ([], ["--quick"]),
    "onnx": ([], ["--quick"]),
    "scale": (["rates"], ["rates", "--quick"]),
}


def main() -> None:
    """Run the benchmarks as subprocesses."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add_quick(parser, "Take some minutes on tiny models")
    options = parser.parse_args()
    for name, (full, small) in BENCHMARKS.items():
        arguments = small if options.quick else full
        print(f"\n## python -m {' '.join([f'benchmarks.{name}', *arguments])}\n", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments], check=True)


if __name__ == "__main__":
    main()
