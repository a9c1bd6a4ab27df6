"""Attention that needs gradients, bfloat16 on CPU: the written-out matrix beside PyTorch's kernel.

`python -m benchmarks.attention`. Forward and backward, one thread, alternating in one process;
medians of paired ratios at the shapes that training at 128 px has.
"""

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from incontext.model.attention import attention

# Name, and (batch, heads, queries, keys, channels).
SHAPES = {"copy path": (8, 4, 1024, 2048, 32), "block": (8, 6, 256, 768, 32)}


def seconds(function: Callable[..., Tensor], inputs: list[Tensor]) -> float:
    """One forward and backward pass."""
    start = time.perf_counter()
    function(*inputs).sum().backward()
    return time.perf_counter() - start


def main(repeats: int = 15) -> None:
    """Print a row for each shape."""
    torch.set_num_threads(1)
    print("| shape | written out, ms | fused, ms | fused ÷ written out (range) |")
    print("|---|---|---|---|")
    for name, (batch, heads, queries, keys, channels) in SHAPES.items():
        inputs = [
            torch.randn(batch, heads, rows, channels, dtype=torch.bfloat16, requires_grad=True)
            for rows in (queries, keys, keys)
        ]
        pairs = []
        for _ in range(repeats + 2):
            ours = seconds(attention, inputs)
            pairs.append((ours, seconds(F.scaled_dot_product_attention, inputs)))
        kept = pairs[2:]  # the first two warm up
        ratios = [fused / ours for ours, fused in kept]
        cells = [f"{1000 * statistics.median(p[i] for p in kept):.0f}" for i in (0, 1)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        print(f"| {name} | {' | '.join(cells)} | {spread} |")


if __name__ == "__main__":
    main()
