"""Peak memory of the full ViT-L against the number of examples.

`python -m benchmarks.memory [--examples 1,8,32] [--chunk 1] [--size vit-large]`. Each number of
examples runs in a process of its own, random weights, float32, one query.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import time

import torch

from incontext.model import SIZES, SegGPT


def measure(size: str, examples: int, chunk: int) -> dict[str, float]:
    """Encode and paint once; seconds, and the process's peak resident memory in MiB."""
    config = SIZES[size]
    torch.manual_seed(0)
    model = SegGPT(config).eval()
    side = config.image_size
    images = torch.randn(1, examples, 3, side, side)
    base = peak()
    start = time.perf_counter()
    with torch.inference_mode():
        encoded = model.encode(images, images, torch.tensor([False]), chunk=chunk)
        painting = model.paint(images[:, 0], encoded, chunk=chunk)
    if not painting.isfinite().all():
        raise RuntimeError("the painting is not finite")
    return {"seconds": time.perf_counter() - start, "peak": peak(), "base": base}


def peak() -> float:
    """Peak resident memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print a row for each number of examples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", default="1,8,32")
    parser.add_argument("--chunk", type=int, default=1)
    parser.add_argument("--size", default="vit-large", choices=sorted(SIZES))
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.size, options.one, options.chunk)))
        return
    print(f"{options.size}, float32, torch {torch.__version__}, {torch.get_num_threads()} threads, "
          f"{platform.machine()}, chunk {options.chunk}")  # fmt: skip
    print("| examples | peak, MiB | model and inputs, MiB | seconds |\n|---|---|---|---|")
    for count in (int(n) for n in options.examples.split(",")):
        command = [sys.executable, "-m", "benchmarks.memory", "--one", str(count)]
        command += ["--chunk", str(options.chunk), "--size", options.size]
        row = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        print(
            f"| {count} | {row['peak']:.0f} | {row['base']:.0f} | {row['seconds']:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
