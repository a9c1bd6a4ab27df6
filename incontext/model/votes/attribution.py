"""Attribution: which places of the examples voted for an id, as the votes were counted.

Letters: N examples, K ids, T cells kept of an example, Q cells of the query, n heads, c channels,
h w rows and columns of a grid, H W pixels.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from incontext.model.thinning import TokenSelection
from incontext.model.votes.cells import Cells
from incontext.model.votes.features import ImageFeatures
from incontext.model.votes.matching import Copying, Matching
from incontext.model.votes.voters import Voters
from incontext.model.votes.votes import TEMPERATURES

Grid = tuple[int, int]


def attribute(
    query: ImageFeatures,
    voters: Voters,
    levels: Sequence[int],
    matching: Matching,
    copying: Copying,
    selections: Sequence[TokenSelection | None],
    grids: Sequence[Grid],
    region: Tensor,
    number: int,
) -> Tensor:
    """Return how much each place of the examples voted for an id in a region of one query.

    Frozen blocks, learned matching and copy path each are a softmax over the examples' cells for
    every cell of the query. Its weights, averaged over the region, times the cells' shares of the
    id, are the votes. The mean of the three kinds is returned, each being the mean of its blocks
    or heads; how the mixer weighs the kinds differs from pixel to pixel and is left out.

    Args:
        query: of one image.
        voters: of one prompt (P = 1).
        levels: of the voting blocks, index into `grids`.
        selections: which cells of each example vote, at each of `grids`; None: all.
        grids: of the cells at strides 8, 16, 32 and 4.
        region: (H, W) weights, 0 or more, not all 0; their scale does not matter.
        number: of the id among the K.

    Returns:
        (N, h, w) at stride 8, 0 or more. Their sum is the share of the votes that went to the id.
    """
    regions = [F.adaptive_avg_pool2d(region[None], grid).flatten() for grid in grids]
    regions = [r / r.sum() for r in regions]
    frozen = []
    for q, k, level in zip(query.blocks, voters.blocks, levels, strict=True):
        cells, keys = voters.cells[level], k[0].flatten(0, 1)
        cosine = q[0] @ keys.T
        for scale in TEMPERATURES:
            mass = _votes(cosine * scale, cells, regions[level], number)
            frozen.append(_place(mass, selections[level], grids[level], grids[0]))
    votes = [torch.stack(frozen).mean(0)]
    keys = rearrange(voters.match_features[0], "e n t d -> n (e t) d")
    cosine = query.match_features[0] @ keys.transpose(1, 2) * matching.scale.exp()
    mass = torch.stack([_votes(x, voters.cells[0], regions[0], number) for x in cosine]).mean(0)
    votes.append(_place(mass, selections[0], grids[0], grids[0]))
    # The first feature of the copy path's labels is the id's share of a cell.
    cells = Cells(voters.pattern[:, :, :, 0, :, 0], voters.weight)
    keys = rearrange(voters.keys[0], "e n t d -> n (e t) d")
    scores = (query.keys[0] * copying.scale.exp()) @ keys.transpose(1, 2)
    mass = torch.stack([_votes(x, cells, regions[-1], number) for x in scores]).mean(0)
    votes.append(_place(mass, selections[-1], grids[-1], grids[0]))
    return torch.stack(votes).mean(0)


def _votes(scores: Tensor, cells: Cells, region: Tensor, number: int) -> Tensor:
    """Return the votes of the cells (N, T), scores being (Q, N·T) before their weight."""
    labels, weight = cells.flatten()
    mass = region.float() @ torch.softmax(scores.float() + weight, -1) * labels[0, number]
    return rearrange(mass, "(e t) -> e t", e=cells.weight.shape[1])


def _place(mass: Tensor, selection: TokenSelection | None, grid: Grid, target: Grid) -> Tensor:
    """Put votes (N, T) of cells of a grid where they came from, at another grid: (N, *target)."""
    if selection is not None:
        everywhere = mass.new_zeros(len(mass), grid[0] * grid[1])
        mass = everywhere.scatter(1, selection.indices[0], mass)
    placed = rearrange(mass, "e (h w) -> e 1 h w", w=grid[1])
    resized = F.adaptive_avg_pool2d(placed, target)
    total = mass.sum(1).view(-1, 1, 1, 1)
    return (resized * total / resized.sum((2, 3), keepdim=True).clamp(min=1e-12))[:, 0]
