"""Ways to compute attention, side by side: the reasons for those in `incontext/model/attention.py`.

`python -m benchmarks.attention [--quick] [--flex]`. First, relative-position attention of one ViT-L
canvas for inference. Second, attention that needs gradients, in bfloat16 on CPU, at the shapes that
training at 128 px has. Alternating in one process, medians of paired ratios.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

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
from incontext.model.attention import attention, biased_slices, partial_attention

# Name, and (batch, heads, queries, keys, channels).
TRAINING = {"copy path": (8, 4, 1024, 2048, 32), "block": (8, 6, 256, 768, 32)}


def ways(rows: int, columns: int, heads: int, channels: int, flex: bool) -> dict[str, Work]:
    """Return functions that all compute the same, except the first."""
    tokens = rows * columns
    q, k, v = torch.randn(1, tokens, 3, heads, channels).permute(2, 0, 3, 1, 4)
    tall, wide = torch.randn(1, heads, tokens, rows), torch.randn(1, heads, tokens, columns)
    # One 1 for the row and one for the column of each key.
    places = torch.cat(
        [torch.eye(rows).repeat_interleave(columns, 0), torch.eye(columns).repeat(rows, 1)], 1
    ).expand(1, heads, -1, -1)

    def by_slices(budget: int | None) -> Tensor:
        out = torch.empty(1, tokens, heads, channels).transpose(1, 2)
        for part, bias in biased_slices(q, tall, wide, budget):
            out[part] = attention(q[part], k[part[:2]], v[part[:2]], bias)
        return out

    def with_full_bias() -> Tensor:
        bias = (tall[..., :, None] + wide[..., None, :]).flatten(3)
        return F.scaled_dot_product_attention(q, k, v, bias)

    def with_bias_channels() -> Tensor:
        """Turn the bias into more channels of q and k; v must be as wide for the kernel."""
        scale = channels**0.5
        wide_q = torch.cat([q, tall * scale, wide * scale], 3)
        wide_k = torch.cat([k, places], 3)
        wide_v = F.pad(v, (0, rows + columns))
        scale = channels**-0.5
        return F.scaled_dot_product_attention(wide_q, wide_k, wide_v, scale=scale)[..., :channels]

    def head_by_head() -> Tensor:
        """Compute the matrix of one head at a time."""
        out = torch.empty(1, tokens, heads, channels).transpose(1, 2)
        scores = torch.empty(tokens, tokens)
        for h in range(heads):
            grid = scores.view(tokens, rows, columns)
            torch.add(tall[0, h][..., None], wide[0, h][:, None], out=grid)
            torch.addmm(scores, q[0, h], k[0, h].T, alpha=channels**-0.5, out=scores)
            out[0, h] = scores.softmax(-1) @ v[0, h]
        return out

    works: dict[str, Callable[[], Tensor]] = {
        "no bias (another result)": lambda: partial_attention(q, k, v).out,
        "slices, 2 heads at a time (ours)": partial(by_slices, None),
        "slices of 128 MiB": partial(by_slices, 2**25),
        "the whole bias": with_full_bias,
        "bias folded into q and k": with_bias_channels,
        "written out, a head at a time": head_by_head,
    }
    if flex:
        works["FlexAttention"] = flexible(q, k, v, tall, wide)
    reference = head_by_head()
    for name, work in list(works.items())[1:]:
        torch.testing.assert_close(work(), reference, atol=1e-4, rtol=1e-4, msg=name)
    return dict(works)


def flexible(q: Tensor, k: Tensor, v: Tensor, tall: Tensor, wide: Tensor) -> Callable[[], Tensor]:
    """Return FlexAttention, compiled on first use, which adds the bias as it goes."""
    from torch.nn.attention.flex_attention import flex_attention

    compiled = torch.compile(flex_attention)
    columns = wide.shape[-1]
    q, k, v = (x.contiguous() for x in (q, k, v))

    def score(x: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return x + tall[b, h, i, j // columns] + wide[b, h, i, j % columns]

    return lambda: compiled(q, k, v, score_mod=score)


def _both_ways(attend: Callable[..., Tensor], inputs: list[Tensor]) -> None:
    attend(*inputs).sum().backward()


def training(rounds: int) -> None:
    """Print a table of forward and backward passes in bfloat16, one thread."""
    torch.set_num_threads(1)
    print(f"\n{environment()}, bfloat16, forward and backward\n")
    heading("shape", "written out", "fused", "fused ÷ written out")
    for name, (batch, heads, queries, keys, channels) in TRAINING.items():
        inputs = [
            torch.randn(batch, heads, n, channels, dtype=torch.bfloat16, requires_grad=True)
            for n in (queries, keys, keys)
        ]
        works = {
            "written": partial(_both_ways, attention, inputs),
            "fused": partial(_both_ways, F.scaled_dot_product_attention, inputs),
        }
        times = alternate(works, rounds, 2)
        row(name, times["written"], times["fused"], ratio(times["fused"], times["written"]))


def main() -> None:
    """Print both tables."""
    parser = option_parser(__doc__, rounds=9)
    parser.add_argument(
        "--flex", action="store_true", help="Measure FlexAttention too, which needs a C++ compiler."
    )
    add_quick(parser, "Measure a small canvas")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rounds = 1 if options.quick else options.rounds
    shape = (16, 8, 4, 16) if options.quick else (56, 28, 16, 64)
    print(f"{environment()}, float32, canvas of {shape[0]}×{shape[1]} tokens, {shape[2]} heads\n")
    with torch.inference_mode():
        times = alternate(ways(*shape, options.flex), rounds, 2)
    heading("way", "a canvas", "÷ ours")
    base = times["slices, 2 heads at a time (ours)"]
    for name, timings in times.items():
        row(name, timings, ratio(timings, base))
    if not options.quick:
        training(options.rounds)


if __name__ == "__main__":
    main()
