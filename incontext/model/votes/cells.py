"""Cells: squares of an example's pixels at one stride, with the share of each id in them.

Letters: P prompts (1 or B), N examples, K ids, T cells kept of an example, M pictures, c channels;
in einops e stands for N.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from incontext.model.thinning import NO_WEIGHT, TokenSelection, select_tokens


@dataclass(frozen=True)
class Cells:
    """Cells of the examples at one stride."""

    labels: Tensor  # (P, N, K, T) in 0–1, the share of the ids in each cell
    weight: Tensor  # (P, N, T), log of how many cells each stands for; `NO_WEIGHT`: no valid pixel

    def prune(self, selection: TokenSelection) -> "Cells":
        """Keep the selected cells only."""
        labels = selection.gather(rearrange(self.labels, "p e k t -> p e t k"))
        return Cells(rearrange(labels, "p e t k -> p e k t"), selection.weight)

    def flatten(self) -> tuple[Tensor, Tensor]:
        """Return labels (P, K, N·T) and weight (P, N·T) of all examples in one row."""
        labels = rearrange(self.labels, "p e k t -> p k (e t)")
        return labels, rearrange(self.weight, "p e t -> p (e t)")


def pool_labels(labels: Tensor, valid: Tensor, grid: tuple[int, int]) -> Cells:
    """Pool labels (P, N, K, H, W) in 0–1 and valid (P, N, H, W) bool to the cells of a grid.

    The share of an id is taken among the valid pixels of a cell; a cell without any does not vote.
    """
    valid_share = F.adaptive_avg_pool2d(valid.to(labels.dtype), grid)
    valid_share = rearrange(valid_share, "p e h w -> p e (h w)")
    masked = rearrange(labels * valid[:, :, None], "p e k h w -> (p e) k h w")
    pooled = F.adaptive_avg_pool2d(masked, grid)
    pooled = rearrange(pooled, "(p e) k h w -> p e k (h w)", p=labels.shape[0])
    pooled = pooled / valid_share[:, :, None].clamp(min=1e-6)
    weight = torch.where(valid_share > 0, valid_share.clamp(min=1e-6).log(), NO_WEIGHT)
    return Cells(pooled, weight)


def unit_vectors(features: Tensor) -> Tensor:
    """Normalize the features of every cell: (M, c, h, w) → (M, h·w, c) of length 1."""
    return F.normalize(rearrange(features, "m c h w -> m (h w) c"), dim=-1)


def select_cells(
    cells: Cells, grid: tuple[int, int], keep_ratio: float, start: int, differ: bool = True
) -> TokenSelection | None:
    """Select the cells of a grid to keep, None: all.

    `differ`: each example, the first being number `start`, has a pattern of its own, so that
    together they miss little; without it all have the same.
    """
    if keep_ratio >= 1:
        return None
    marked, valid = (
        rearrange(x, "p e (h w) -> p e h w", w=grid[1])
        for x in (cells.labels.amax(2) > 0, cells.weight > NO_WEIGHT / 2)
    )
    if differ:
        return select_tokens(marked, keep_ratio, start, valid)
    # As if each example were the first of its prompt.
    marked_each, valid_each = (rearrange(x, "p e h w -> (p e) 1 h w") for x in (marked, valid))
    selection = select_tokens(marked_each, keep_ratio, 0, valid_each)
    assert selection is not None
    indices, weight = (
        rearrange(x, "(p e) 1 t -> p e t", p=marked.shape[0])
        for x in (selection.indices, selection.weight)
    )
    return TokenSelection(indices, weight)
