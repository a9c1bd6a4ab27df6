"""Which tokens of an example are kept where there are more examples than a query needs in full.

Letters: P prompts, N examples, L tokens of an example, K of them kept, d channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# The plane's two most irrational steps (plastic number) and the line's (golden ratio): multiples
# of them, taken modulo 1, fill the unit interval evenly, so that a threshold picks an even pattern.
COLUMN_STEP, ROW_STEP, EXAMPLE_STEP = 0.7548776662466927, 0.5698402909980532, 0.6180339887498949
# Log weight of what must not count; finite, and within float16: a softmax over nothing else would
# be NaN.
NO_WEIGHT = -1e4


@dataclass(frozen=True)
class TokenSelection:
    """Tokens that stand for all tokens of their example."""

    indices: Tensor  # (P, N, K), ascending, into the flattened grid
    weight: Tensor  # (P, N, K), log of how many tokens each stands for

    def gather(self, x: Tensor) -> Tensor:
        """Return the selected ones of tokens (P, …, N, L, d): (P, …, N, K, d)."""
        indices = self.indices.view(len(x), *[1] * (x.dim() - 4), *self.indices.shape[1:], 1)
        return x.gather(-2, indices.expand(*x.shape[:-2], -1, x.shape[-1]))


def select_tokens(
    marked: Tensor, keep_ratio: float, start: int, valid: Tensor | None = None
) -> TokenSelection | None:
    """Select tokens spread evenly over each example, up to half of them with an object.

    Marked tokens are those with an object: a small one would be thinned away. A token's weight is
    the number of tokens of its sort over the number kept, so that the sums of a softmax are
    estimated without bias. A token without a valid pixel gets `NO_WEIGHT`.

    Args:
        marked: (P, N, h, w) bool.
        keep_ratio: share of the tokens to keep, over 0; from 1 on all, which without `valid`
            returns None.
        start: number of the first example: each has a pattern of its own.
        valid: (P, N, h, w) bool, False = no label in this token; None: all True.
    """
    if valid is not None:
        return _select(marked & valid, min(keep_ratio, 1.0), start, valid)
    if keep_ratio >= 1:
        return None
    return _select(marked, keep_ratio, start, torch.ones_like(marked))


def _select(marked: Tensor, keep_ratio: float, start: int, valid: Tensor) -> TokenSelection:
    """Select among three sorts of tokens: marked, plain (valid, not marked), invalid."""
    # In float64 and on the CPU: the same tokens on every device.
    rows, columns = (torch.arange(n, dtype=torch.float64) for n in marked.shape[2:])
    steps = (rows[:, None] * ROW_STEP + columns * COLUMN_STEP).flatten()
    shift = torch.arange(start, start + marked.shape[1], dtype=torch.float64) * EXAMPLE_STEP
    pattern = (steps + shift[:, None]) % 1.0  # (N, L)
    is_marked, is_valid = marked.flatten(2).cpu(), valid.flatten(2).cpu()
    total = max(2, round(keep_ratio * is_marked.shape[2]))
    marked_count = is_marked.sum(2, keepdim=True)  # (P, N, 1)
    plain_count = is_valid.sum(2, keepdim=True) - marked_count
    marked_quota = torch.minimum(marked_count, (total - plain_count).clamp(min=total // 2))
    plain_quota = torch.minimum(plain_count, total - marked_quota)
    # Marked tokens rank 0, 1, … in their pattern's order, plain ones go on from there, and invalid
    # ones fill up where there are too few: every example keeps as many.
    rank = (pattern + (~is_marked).double() + (~is_valid).double()).argsort(2).argsort(2)
    invalid_quota = total - marked_quota - plain_quota
    keep = is_marked & (rank < marked_quota)
    keep |= ~is_marked & is_valid & (rank - marked_count < plain_quota)
    keep |= ~is_valid & (rank - marked_count - plain_count < invalid_quota)
    # A sort that puts the kept tokens first, each side in the grid's order.
    order = torch.arange(is_marked.shape[2]) + (~keep).long() * is_marked.shape[2]
    indices = order.argsort(2)[:, :, :total]
    weight = torch.where(is_marked, marked_count / marked_quota, plain_count / plain_quota).log()
    weight = weight.masked_fill(~is_valid, NO_WEIGHT).gather(2, indices).float()
    return TokenSelection(indices.to(marked.device), weight.to(marked.device))


def concat_weights(
    weights: Sequence[Tensor | None], shapes: Sequence[tuple[int, int, int]], dim: int
) -> Tensor | None:
    """Concatenate the weights of several prompts along `dim`; None stands for zeros.

    `shapes`: (P, N, K) of each. Returns None where all are None, that is, all tokens are kept.
    """
    template = next((w for w in weights if w is not None), None)
    if template is None:
        return None
    pairs = zip(weights, shapes, strict=True)
    return torch.cat([template.new_zeros(shape) if w is None else w for w, shape in pairs], dim)


def object_cells(targets: Tensor, background: tuple[float, ...], grid: tuple[int, int]) -> Tensor:
    """Find the tokens whose target is not all background: (P, N, 3, …) → (P, N, h, w) bool.

    `background`: its normalized RGB; a pixel within 0.1 of it counts as background.
    """
    plain = targets.new_tensor(background).view(3, 1, 1)
    return any_pixel(((targets - plain).abs() > 0.1).any(2), grid)


def any_pixel(pixels: Tensor, grid: tuple[int, int]) -> Tensor:
    """Find the cells with a True pixel: (P, N, height, width) bool → (P, N, h, w) bool."""
    return F.adaptive_max_pool2d(pixels.float(), grid) > 0
