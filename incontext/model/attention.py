"""Softmax attention: whole, in slices under a bias that never exists at once, or in parts.

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
    """softmax(scale · q kᵀ + bias) v over the last two dimensions; scale defaults to 1/√d.

    On CPU, PyTorch's fused backward pass in bfloat16 is slower than writing the matrix out (see
    `benchmarks/README.md`), so what needs gradients there does that.
    """
    if not (q.requires_grad and q.device.type == "cpu" and q.dtype == torch.bfloat16):
        return F.scaled_dot_product_attention(q, k, v, bias, scale=scale)
    scores = (q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.transpose(-1, -2)
    return (scores if bias is None else scores + bias.to(scores.dtype)).softmax(-1).to(v.dtype) @ v


@dataclass(frozen=True)
class AttentionOutput:
    """Attention over some of the keys, with the log-sum-exp that merging with others needs."""

    out: Tensor  # (M, n, L, d)
    lse: Tensor  # (M, n, L) float32, log-sum-exp of the scores: the softmax's denominator

    def repeat(self, times: int) -> "AttentionOutput":
        """Each of M that often in a row."""
        if times == 1:
            return self
        return AttentionOutput(*(x.repeat_interleave(times, 0) for x in (self.out, self.lse)))

    def merge(self, other: "AttentionOutput", offset: float = 0.0) -> "AttentionOutput":
        """Exactly the attention over both groups of keys; `offset` is added to the other's scores.

        The softmax over both is the mean of the two, weighted by their denominators (as in online
        softmax, Milakov & Gimelshein 2018, and flash attention).
        """
        other_lse = other.lse + offset
        share = torch.sigmoid(other_lse - self.lse)[..., None].to(self.out.dtype)
        return AttentionOutput(
            torch.lerp(self.out, other.out, share), torch.logaddexp(self.lse, other_lse)
        )


def can_merge(q: Tensor) -> bool:
    """Whether parts pay: there is a kernel that answers denominators, nobody wants gradients."""
    return not (q.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling())


def partial_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, scale: float | None = None
) -> AttentionOutput:
    """`attention` with the denominator that merging needs.

    A kernel answers both where parts pay, see `can_merge`; elsewhere the matrix is written out.
    """
    if can_merge(q):
        return AttentionOutput(*_flash_cpu(q, k, v, 0.0, False, attn_mask=bias, scale=scale))
    scores = (q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.transpose(-1, -2)
    scores = scores.float() if bias is None else scores.float() + bias
    lse = scores.logsumexp(-1)
    return AttentionOutput((scores - lse[..., None]).exp().to(v.dtype) @ v, lse)


@dataclass(frozen=True)
class Group:
    """Keys that are attended to together with others."""

    k: Tensor  # (M, n, K, d)
    v: Tensor
    weight: Tensor | None = None  # (M or 1, 1, 1, K), added to the scores
    offset: float = 0.0  # added to all of them


def grouped_attention(q: Tensor, groups: Sequence[Group], scale: float | None = None) -> Tensor:
    """Attention over all keys of several groups in one softmax: (M, n, L, d)."""
    # `shape[0]` here and elsewhere: `len` would fix the number in graphs for other runtimes.
    if can_merge(q):
        parts = (partial_attention(q, g.k, g.v, _bias(g, q), scale) for g in groups)
        whole = next(parts)
        for group, part in zip(groups[1:], parts, strict=True):
            whole = whole.merge(part, group.offset - groups[0].offset)
        return whole.out
    if len(groups) == 1 and groups[0].weight is None:
        return attention(q, groups[0].k, groups[0].v, None, scale)
    bias = []
    for group in groups:
        weight = q.new_zeros(group.k.shape[2]) if group.weight is None else group.weight
        bias.append((weight + group.offset).to(q.dtype).expand(q.shape[0], 1, 1, -1))
    k, v = torch.cat([g.k for g in groups], 2), torch.cat([g.v for g in groups], 2)
    return attention(q, k, v, torch.cat(bias, 3), scale)


def _bias(group: Group, q: Tensor) -> Tensor | None:
    """The weights of a group as the kernel reads them: (M, n, L, K), nothing of it repeated."""
    if group.weight is None:
        return None
    return group.weight.to(q.dtype).expand(*q.shape[:3], -1)


def biased_slices(
    q: Tensor, tall: Tensor, wide: Tensor, budget: int | None = None
) -> Iterator[tuple[tuple[slice, slice, slice], Tensor]]:
    """Cut queries into slices whose bias is small: (where in (M, n, L), bias (m, h, l, R·C)).

    The bias of a key at row r and column c is tall[…, r] + wide[…, c], with tall (M, n, L, R) and
    wide (M, n, L, C). At most `budget` elements of it exist at a time (one query at the least); a
    slice's bias is overwritten by the next one, unless gradients are wanted. Traced, all is one
    slice: how many there are would otherwise be fixed in the graph, and with it the batch.
    """
    if torch.compiler.is_compiling():
        yield (slice(None),) * 3, (tall[..., :, None] + wide[..., None, :]).flatten(3)
        return
    images, heads, rows = q.shape[:3]
    grid = (tall.shape[-1], wide.shape[-1])
    keys = grid[0] * grid[1]
    budget = budget or (BIAS_BUDGET if q.device.type == "cpu" else BIAS_BUDGET_GPU)
    some = min(rows, max(1, budget // keys))
    several = min(heads, max(1, budget // (keys * rows))) if some == rows else 1
    many = min(images, max(1, budget // (keys * rows * heads))) if several == heads else 1
    reuse = not torch.is_grad_enabled()
    space = q.new_empty(many * several * some * keys) if reuse else None
    for m in range(0, images, many):
        for h in range(0, heads, several):
            for at in range(0, rows, some):
                where = (slice(m, m + many), slice(h, h + several), slice(at, at + some))
                one, other = tall[where][..., :, None], wide[where][..., None, :]
                shape = (*one.shape[:3], *grid)
                size = one[..., 0, 0].numel() * keys
                out = None if space is None else space[:size].view(shape)
                yield where, torch.add(one, other, out=out).flatten(3)
