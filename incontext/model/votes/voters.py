"""Voters: the cells of examples that vote, with their features and labels.

Letters: P prompts (1 or B), B queries, N examples, K ids, T cells kept of an example, h w rows and
columns of a grid, c channels of a block, n heads, d channels of a head; in einops e stands for N.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from incontext.model.chunks import indexed_tensors
from incontext.model.thinning import TokenSelection
from incontext.model.votes.cells import Cells, pool_labels, select_cells
from incontext.model.votes.features import ImageFeatures
from incontext.model.votes.matching import FINE, Copying

STRIDES = (8, 16, 32)  # of the voting blocks; a block's level is its index in here
FINE_SHARE = 0.25  # of the cells at stride 4, relative to coarser ones, that are kept of an example
SINGLE_TENSORS = ("matched", "keys", "pattern", "weight")  # of `Voters.tensors`: without a number
CELL_AXES = {"labels": 3, "matched": 3, "keys": 3, "pattern": 4}  # where T stands; else 2


@dataclass(frozen=True)
class Voters:
    """Cells of N examples that vote: their features and labels."""

    blocks: Sequence[Tensor]  # (P, N, T, c) each, unit vectors of the frozen blocks
    cells: Sequence[Cells]  # at strides 8, 16, 32
    match_features: Tensor  # (P, N, n, T, d), learned features at stride 8
    keys: Tensor  # (P, N, n, T, d), features of the copy path at stride 4
    pattern: Tensor  # (P, N, K, n, T, d), learned features of the labels at stride 4
    weight: Tensor  # (P, N, T), of the cells at stride 4, see `Cells`

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by the names that prompt files use."""
        tensors = {f"block.{i}": x for i, x in enumerate(self.blocks)}
        tensors |= {f"labels.{i}": cells.labels for i, cells in enumerate(self.cells)}
        tensors |= {f"weight.{i}": cells.weight for i, cells in enumerate(self.cells)}
        single = (self.match_features, self.keys, self.pattern, self.weight)
        return tensors | dict(zip(SINGLE_TENSORS, single, strict=True))

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> "Voters":
        """Rebuild voters from `tensors()`."""
        labels, weights = (indexed_tensors(tensors, name) for name in ("labels", "weight"))
        cells = [Cells(*pair) for pair in zip(labels, weights, strict=True)]
        single = [tensors[name] for name in SINGLE_TENSORS]
        return cls(indexed_tensors(tensors, "block"), cells, *single)

    @classmethod
    def concat(cls, parts: "Sequence[Voters]") -> "Voters":
        """Concatenate the voters of several prompts of the same ids; N grows.

        Where parts keep different numbers of cells, all cells become those of a single example.
        """
        sources = [voters.tensors() for voters in parts]
        result = {}
        for name in sources[0]:
            tensors = [source[name].to(sources[-1][name].dtype) for source in sources]
            axis = cell_axis(name)
            if len({x.shape[axis] for x in tensors}) > 1:
                result[name] = torch.cat([_join(x, axis, x.shape[1]) for x in tensors], axis)
            else:
                result[name] = torch.cat(tensors, 1)
        return cls.from_tensors(result)

    def flatten(self) -> "Voters":
        """Make all cells those of a single example; the votes stay the same."""
        tensors = self.tensors().items()  # of some there may be a single example already
        return Voters.from_tensors(
            {name: _join(x, cell_axis(name), x.shape[1]) for name, x in tensors}
        )

    def join(self, count: int) -> "Voters":
        """Make the cells of every `count` examples in a row those of one; the votes stay the same.

        N becomes N / count.
        """
        tensors = self.tensors().items()
        return Voters.from_tensors({name: _join(x, cell_axis(name), count) for name, x in tensors})

    def fits(self, count: int) -> bool:
        """Return True if this can be of `count` examples: N, or any number once flattened."""
        return all(x.shape[1] in (1, count) for x in self.tensors().values())

    @property
    def nbytes(self) -> int:
        """Size of all tensors."""
        return sum(x.nbytes for x in self.tensors().values())

    def to(self, dtype_or_device: torch.dtype | torch.device) -> "Voters":
        """Convert or move the tensors; queries are computed in their own dtype.

        Weights stay float32: they are logarithms of counts.
        """

        def convert(name: str, x: Tensor) -> Tensor:
            fixed = isinstance(dtype_or_device, torch.dtype) and name.startswith("weight")
            return x if fixed else x.to(dtype_or_device)

        return Voters.from_tensors({name: convert(name, x) for name, x in self.tensors().items()})

    def select(self, numbers: Tensor) -> "Voters":
        """Pick other examples for each query: `numbers` (B, k) of the N; P must be 1."""
        return self.map(lambda x: x[0][numbers])

    def regroup(self, numbers: Tensor) -> "Voters":
        """Make prompts of the examples of several, N being 1: `numbers` (B, k) of the P."""
        return self.map(lambda x: x[:, 0][numbers])

    def map(self, change: Callable[[Tensor], Tensor]) -> "Voters":
        """Change every tensor."""
        return Voters.from_tensors({name: change(x) for name, x in self.tensors().items()})


def cell_axis(name: str) -> int:
    """Return the axis of the cells in a tensor of `Voters`."""
    return CELL_AXES.get(name.partition(".")[0], 2)


def _join(x: Tensor, axis: int, count: int) -> Tensor:
    """(P, N, …, T at `axis`, …) → (P, N / count, …, count·T, …)."""
    return x.unflatten(1, (-1, count)).movedim(2, axis).flatten(axis, axis + 1)


def voting_grids(features: ImageFeatures, levels: Sequence[int]) -> list[tuple[int, int]]:
    """Return the grids (h, w) of features at `STRIDES`, then the one at stride `FINE`.

    Args:
        levels: of the voting blocks.
    """
    height, width = features.skips[0].shape[-2:]
    coarse = [features.grids[levels.index(level)] for level in range(len(STRIDES))]
    return [*coarse, (int(height), int(width))]


def select_voters(
    cells: Cells, grid: tuple[int, int], stride: int, keep_ratio: float, start: int = 0
) -> TokenSelection | None:
    """Select the cells of examples that vote at a stride; None: all.

    Args:
        keep_ratio: share of the cells to keep, see `thinning.select_tokens`; at stride `FINE`
            `FINE_SHARE` of that.
        start: number of the first example.
    """
    if stride == FINE:
        return select_cells(cells, grid, keep_ratio * FINE_SHARE, start, differ=keep_ratio < 1)
    return select_cells(cells, grid, keep_ratio, start)


def build_voters(
    features: ImageFeatures,
    labels: Tensor,
    valid: Tensor,
    levels: Sequence[int],
    copying: Copying,
    keep_ratio: float = 1.0,
    start: int = 0,
) -> Voters:
    """Build the voters of examples from features and labels.

    Args:
        features: of P·N images.
        labels: (P, N, K, H, W) in 0–1.
        valid: (P, N, H, W) bool.
        levels: of the voting blocks.
        copying: the copy path, which turns labels into features.
        keep_ratio: share of the cells to keep, see `select_voters`.
        start: number of the first example.
    """
    prompts = labels.shape[0]
    *grids, fine_grid = voting_grids(features, levels)
    cells = [pool_labels(labels, valid, grid) for grid in grids]
    blocks = [rearrange(x, "(p e) t c -> p e t c", p=prompts) for x in features.blocks]
    match_features = rearrange(features.match_features, "(p e) n t d -> p n e t d", p=prompts)
    for level, (grid, stride) in enumerate(zip(grids, STRIDES, strict=True)):
        selection = select_voters(cells[level], grid, stride, keep_ratio, start)
        if selection is None:
            continue
        cells[level] = cells[level].prune(selection)
        blocks = [selection.gather(x) if at == level else x
                  for x, at in zip(blocks, levels, strict=True)]  # fmt: skip
        if level == 0:
            match_features = selection.gather(match_features)
    match_features = rearrange(match_features, "p n e t d -> p e n t d")
    fine_cells = pool_labels(labels, valid, fine_grid)
    selection = select_voters(fine_cells, fine_grid, FINE, keep_ratio, start)
    masked = labels * valid[:, :, None]
    keys, pattern = _build_fine(features, masked, copying, selection)
    weight = fine_cells.weight if selection is None else selection.weight
    voters = Voters(blocks, cells, match_features, keys, pattern, weight)
    # As a file holds them: other strides in memory would change the last digits.
    return voters.map(Tensor.contiguous)


def _build_fine(
    features: ImageFeatures, labels: Tensor, copying: Copying, selection: TokenSelection | None
) -> tuple[Tensor, Tensor]:
    """Build keys and pattern of the copy path's voters of labels (P, N, K, H, W)."""
    keys = rearrange(features.keys, "(p e) n t d -> p e n t d", p=labels.shape[0])
    masks = rearrange(labels, "p e k h w -> (p e k) h w")
    # No einops: N and K are both free in graphs.
    pattern = copying.values(masks).unflatten(0, labels.shape[:3])
    return (keys, pattern) if selection is None else select_fine(keys, pattern, selection)


def select_fine(keys: Tensor, pattern: Tensor, selection: TokenSelection) -> tuple[Tensor, Tensor]:
    """Keep the selected cells of keys (P, N, n, T, d) and pattern (P, N, K, n, T, d)."""
    heads = pattern.shape[3]
    keys = selection.gather(rearrange(keys, "p e n t d -> p n e t d"))
    keys = rearrange(keys, "p n e t d -> p e n t d")
    pattern = selection.gather(rearrange(pattern, "p e k n t d -> p (k n) e t d"))
    return keys, rearrange(pattern, "p (k n) e t d -> p e k n t d", n=heads)
