"""What one example and one query cost with a bundled checkpoint at its own resolution.

`python -m benchmarks.query`. Whole calls on pictures in memory: scaling, encoding, painting and
reading included; two threads, float32; medians.
"""

import statistics
import sys
import time

import numpy as np

from incontext import Example, Predictor
from incontext.checkpoint import DEFAULT

COUNTS = (1, 4, 16)


def main(checkpoint: str, repeats: int = 15) -> None:
    """Print a row for each number of examples."""
    import torch

    torch.set_num_threads(2)
    predictor = Predictor.from_pretrained(checkpoint)
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (480, 640, 3), np.uint8)
    mask = np.zeros((480, 640), bool)
    mask[100:300, 200:400] = True
    print(f"{checkpoint}, {predictor.size}×{predictor.size}")
    print("| examples | prompt, s | each query, s | one query from nothing, s |")
    print("|---|---|---|---|")
    for count in COUNTS:
        times = []
        for _ in range(repeats + 2):
            start = time.perf_counter()
            prompt = predictor.prompt([Example(picture, mask)] * count)
            middle = time.perf_counter()
            predictor.predict(picture, prompt)
            times.append((middle - start, time.perf_counter() - middle))
        kept = times[2:]  # the first two warm up
        first, second = (statistics.median(t[i] for t in kept) for i in range(2))
        print(f"| {count} | {first:.2f} | {second:.2f} | {first + second:.2f} |")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else DEFAULT)
