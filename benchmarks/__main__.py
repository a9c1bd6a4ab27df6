"""`python -m benchmarks [--quick]`: all of them, one after the other.

--quick takes two minutes on tiny models and says that everything runs; its figures mean little.
"""

import subprocess
import sys

# Name and arguments, and arguments for --quick.
ALL: dict[str, tuple[list[str], list[str]]] = {
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
    """Run them."""
    quick = "--quick" in sys.argv[1:]
    for name, (full, small) in ALL.items():
        arguments = small if quick else full
        print(f"\n## python -m {' '.join([f'benchmarks.{name}', *arguments])}\n", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments], check=True)


if __name__ == "__main__":
    main()
