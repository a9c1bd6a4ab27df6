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
class Partial:
    """Attention over some of the keys: what it found, and how much it weighs among the others."""

    found: Tensor  # (M, n, L, d)
    weight: Tensor  # (M, n, L) float32, log of the softmax's denominator

    def repeat(self, times: int) -> "Partial":
        """Each of M that often in a row."""
        if times == 1:
            return self
        return Partial(*(x.repeat_interleave(times, 0) for x in (self.found, self.weight)))

    def merge(self, other: "Partial", offset: float = 0.0) -> "Partial":
        """Exactly the attention over both groups of keys; `offset` is added to the other's scores.

        The softmax over both is the mean of the two, weighted by their denominators (as in online
        softmax, Milakov & Gimelshein 2018, and flash attention).
        """
        theirs = other.weight + offset
        share = torch.sigmoid(theirs - self.weight)[..., None].to(self.found.dtype)
        return Partial(
            torch.lerp(self.found, other.found, share), torch.logaddexp(self.weight, theirs)
        )


def can_merge(q: Tensor) -> bool:
    """Whether parts pay: a kernel that answers denominators, and nobody asks for gradients."""
    return q.device.type == "cpu" and not torch.is_grad_enabled()


def partial_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, scale: float | None = None
) -> Partial:
    """`attention` on CPU without gradients, with the denominator that merging needs."""
    found, weight = _flash_cpu(q, k, v, 0.0, False, attn_mask=bias, scale=scale)
    return Partial(found, weight)


def grouped_attention(
    q: Tensor, groups: Sequence[tuple[Tensor, Tensor, float]], scale: float | None = None
) -> Tensor:
    """Attention over all keys of several groups (k, v, offset of its scores) in one softmax."""
    if can_merge(q):
        (k, v, offset), *others = groups
        whole = partial_attention(q, k, v, scale=scale)
        for k, v, other in others:
            whole = whole.merge(partial_attention(q, k, v, scale=scale), other - offset)
        return whole.found
    k, v = (torch.cat([group[i] for group in groups], 2) for i in (0, 1))
    offsets = [q.new_full((group.shape[2],), offset) for group, _, offset in groups]
    return attention(q, k, v, torch.cat(offsets)[None], scale)


def biased_slices(
    q: Tensor, tall: Tensor, wide: Tensor, budget: int | None = None
) -> Iterator[tuple[tuple[slice, slice, slice], Tensor]]:
    """Cut queries into slices whose bias is small: (where in (M, n, L), bias (m, h, l, R·C)).

    The bias of a key at row r and column c is tall[…, r] + wide[…, c], with tall (M, n, L, R) and
    wide (M, n, L, C). At most `budget` elements of it exist at a time (one query at the least); a
    slice's bias is overwritten by the next one, unless gradients are wanted.
    """
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
