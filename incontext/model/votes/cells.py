"""Cells: squares of an example's pixels at one stride, with the share of each id in them.

Letters: P prompts (1 or B), N examples, K ids, T cells kept of an example, M pictures, c channels.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from incontext.model.thinning import NO_WEIGHT, TokenSelection, select_tokens


@dataclass(frozen=True)
class Cells:
    """Cells of the examples at one stride."""

    labels: Tensor  # (P, N, K, T) in 0–1, the share of the ids in each cell
    weight: Tensor  # (P, N, T), log of how many cells each stands for; `NO_WEIGHT`: no valid pixel

    def prune(self, selection: TokenSelection) -> "Cells":
        """Keep the selected cells only."""
        labels = selection.gather(self.labels.transpose(2, 3)).transpose(2, 3)
        return Cells(labels, selection.weight)

    def flatten(self) -> tuple[Tensor, Tensor]:
        """Return labels (P, K, N·T) and weight (P, N·T) of all examples in one row."""
        return self.labels.transpose(1, 2).flatten(2), self.weight.flatten(1)


def pool_labels(labels: Tensor, valid: Tensor, grid: tuple[int, int]) -> Cells:
    """Pool labels (P, N, K, H, W) in 0–1 and valid (P, N, H, W) bool to the cells of a grid.

    The share of an id is taken among the valid pixels of a cell; a cell without any does not vote.
    """
    valid_share = F.adaptive_avg_pool2d(valid.to(labels.dtype), grid)  # (P, N, h, w)
    masked = labels * valid[:, :, None]
    pooled = F.adaptive_avg_pool2d(masked.flatten(0, 1), grid).unflatten(0, labels.shape[:2])
    pooled = pooled / valid_share[:, :, None].clamp(min=1e-6)
    weight = torch.where(valid_share > 0, valid_share.clamp(min=1e-6).log(), NO_WEIGHT)
    return Cells(pooled.flatten(3), weight.flatten(2))


def unit_vectors(features: Tensor) -> Tensor:
    """Normalize the features of every cell: (M, c, h, w) → (M, h·w, c) of length 1."""
    return F.normalize(features.flatten(2).transpose(1, 2), dim=-1)


def select_cells(
    cells: Cells, grid: tuple[int, int], keep_ratio: float, start: int, differ: bool = True
) -> TokenSelection | None:
    """Select the cells of a grid to keep, None: all.

    `differ`: each example, the first being number `start`, has a pattern of its own, so that
    together they miss little; without it all have the same.
    """
    if keep_ratio >= 1:
        return None
    marked = cells.labels.amax(2).unflatten(2, grid) > 0
    valid = (cells.weight > NO_WEIGHT / 2).unflatten(2, grid)
    if differ:
        return select_tokens(marked, keep_ratio, start, valid)
    # As if each example were the first of its prompt.
    selection = select_tokens(
        marked.flatten(0, 1)[:, None], keep_ratio, 0, valid.flatten(0, 1)[:, None]
    )
    assert selection is not None
    indices, weight = (x.view(*marked.shape[:2], -1) for x in (selection.indices, selection.weight))
    return TokenSelection(indices, weight)
