"""Softmax attention: in one piece, in slices under a bias that never exists at once, or in parts.

Letters: M any leading dimension, n heads, L queries, K keys, d channels of a head, R C rows and
columns of the grid of keys.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Attention bias built at once, in elements. On CPU two heads of a ViT-L canvas: 20 MB, which stay
# in the last cache until the kernel reads them; larger slices are slower, see benchmarks/README.md.
BIAS_BUDGET = 5 * 2**20
BIAS_BUDGET_GPU = 2**27

_flash_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """Return softmax(scale · q kᵀ + bias) v over the last two dimensions; scale defaults to 1/√d.

    On CPU, PyTorch's fused backward pass in bfloat16 is slower than writing the matrix out (see
    `benchmarks/README.md`), so that is done wherever gradients are wanted there.
    """
    if not (q.requires_grad and q.device.type == "cpu" and q.dtype == torch.bfloat16):
        return F.scaled_dot_product_attention(q, k, v, bias, scale=scale)
    scores = (q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.transpose(-1, -2)
    return (scores if bias is None else scores + bias.to(scores.dtype)).softmax(-1).to(v.dtype) @ v


@dataclass(frozen=True)
class AttentionOutput:
    """Attention over a group of keys, with the log-sum-exp that merging with another needs."""

    out: Tensor  # (M, n, L, d)
    lse: Tensor  # (M, n, L) float32, log of the softmax's denominator

    def repeat(self, times: int) -> "AttentionOutput":
        """Repeat each of M `times` in a row."""
        if times == 1:
            return self
        return AttentionOutput(*(x.repeat_interleave(times, 0) for x in (self.out, self.lse)))

    def merge(self, other: "AttentionOutput", offset: float = 0.0) -> "AttentionOutput":
        """Return the exact attention over both groups; `offset` is added to the other's scores.

        The softmax over both is the mean of the two, weighted by their denominators (as in online
        softmax, Milakov & Gimelshein 2018, and flash attention). The weight is a sigmoid of the
        difference of logarithms, so that no exponential can overflow.
        """
        other_lse = other.lse + offset
        share = torch.sigmoid(other_lse - self.lse)[..., None].to(self.out.dtype)
        return AttentionOutput(
            torch.lerp(self.out, other.out, share), torch.logaddexp(self.lse, other_lse)
        )


def can_merge(q: Tensor) -> bool:
    """Return True if attention in parts pays: on CPU, without gradients, not traced.

    Only there does PyTorch's kernel return the log-sum-exp along with the output.
    """
    return not (q.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling())


def partial_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, scale: float | None = None
) -> AttentionOutput:
    """Compute `attention` with the log-sum-exp that merging needs.

    A kernel returns both where `can_merge` is True; elsewhere the matrix is written out.
    """
    if can_merge(q):
        return AttentionOutput(*_flash_cpu(q, k, v, 0.0, False, attn_mask=bias, scale=scale))
    scores = (q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.transpose(-1, -2)
    # float32 from here on: in a smaller type the sum of exponentials loses the small ones.
    scores = scores.float() if bias is None else scores.float() + bias
    lse = scores.logsumexp(-1)
    return AttentionOutput((scores - lse[..., None]).exp().to(v.dtype) @ v, lse)


@dataclass(frozen=True)
class Group:
    """Keys that share one softmax with other groups."""

    k: Tensor  # (M, n, K, d)
    v: Tensor
    weight: Tensor | None = None  # (M or 1, 1, 1, K), added to the scores
    offset: float = 0.0  # added to all of them


def grouped_attention(q: Tensor, groups: Sequence[Group], scale: float | None = None) -> Tensor:
    """Attend to all keys of several groups in one softmax: (M, n, L, d)."""
    # `shape[0]` here and elsewhere: `len` would fix the number in graphs for other runtimes.
    if can_merge(q):
        outputs = (partial_attention(q, g.k, g.v, _bias(g, q), scale) for g in groups)
        total = next(outputs)
        for group, output in zip(groups[1:], outputs, strict=True):
            total = total.merge(output, group.offset - groups[0].offset)
        return total.out
    if len(groups) == 1 and groups[0].weight is None:
        return attention(q, groups[0].k, groups[0].v, None, scale)
    bias = []
    for group in groups:
        weight = q.new_zeros(group.k.shape[2]) if group.weight is None else group.weight
        bias.append((weight + group.offset).to(q.dtype).expand(q.shape[0], 1, 1, -1))
    k, v = torch.cat([g.k for g in groups], 2), torch.cat([g.v for g in groups], 2)
    return attention(q, k, v, torch.cat(bias, 3), scale)


def _bias(group: Group, q: Tensor) -> Tensor | None:
    """Return a group's weights as the kernel reads them: (M, n, L, K), an expanded view."""
    if group.weight is None:
        return None
    return group.weight.to(q.dtype).expand(*q.shape[:3], -1)


def biased_slices(
    q: Tensor, row_bias: Tensor, column_bias: Tensor, budget: int | None = None
) -> Iterator[tuple[tuple[slice, slice, slice], Tensor]]:
    """Yield slices of the queries, as an index into (M, n, L), with their bias (m, h, l, R·C).

    The bias of a key at row r and column c is row_bias[…, r] + column_bias[…, c], from (M, n, L, R)
    and (M, n, L, C). At most `budget` elements of it exist at a time (one query at the least); a
    slice's bias is overwritten by the next one, unless gradients are wanted. Traced, everything is
    one slice: the number of slices would otherwise be fixed in the graph, and with it the batch.
    """
    # No einops in here: this loop runs hundreds of times a block, on views of a few kilobytes.
    if torch.compiler.is_compiling():
        bias = row_bias[..., :, None] + column_bias[..., None, :]
        yield (slice(None),) * 3, bias.flatten(3)
        return
    images, heads, queries = q.shape[:3]
    grid = (row_bias.shape[-1], column_bias.shape[-1])
    keys = grid[0] * grid[1]
    budget = budget or (BIAS_BUDGET if q.device.type == "cpu" else BIAS_BUDGET_GPU)
    # As many queries as fit; several heads only if all queries fit, several images only if all
    # heads do.
    length = min(queries, max(1, budget // keys))
    depth = min(heads, max(1, budget // (keys * queries))) if length == queries else 1
    batch = min(images, max(1, budget // (keys * queries * heads))) if depth == heads else 1
    reuse = not torch.is_grad_enabled()
    buffer = q.new_empty(batch * depth * length * keys) if reuse else None
    for m in range(0, images, batch):
        for h in range(0, heads, depth):
            for start in range(0, queries, length):
                index = (slice(m, m + batch), slice(h, h + depth), slice(start, start + length))
                rows, columns = row_bias[index][..., :, None], column_bias[index][..., None, :]
                shape = (*rows.shape[:3], *grid)
                size = rows[..., 0, 0].numel() * keys
                out = None if buffer is None else buffer[:size].view(shape)
                yield index, torch.add(rows, columns, out=out).flatten(3)
