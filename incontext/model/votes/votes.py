"""Votes: example pixels say of which id a query pixel is, by how alike frozen features are.

HSNet (arXiv 2104.01538) and DCAMA (arXiv 2207.08549) match in every block of a frozen network; here
each block's softmax over all example cells averages their labels, as DCAMA's attention does.
Letters: P prompts (1 or B), B queries, N examples, K ids, T cells kept of an example, Q cells of a
query, c channels of a block, n heads, d channels of a head.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from incontext.model.chunks import indexed_tensors
from incontext.model.thinning import NO_WEIGHT, TokenSelection

TEMPERATURES = (12.0, 40.0)  # inverse ones: how sharply a query cell picks the cells most like it
MAPS = 6  # that `cast_votes` answers for each id
SELF_MAPS = len(TEMPERATURES)  # that `cast_self_votes` answers
WHOLE = ("matched", "keys", "pattern", "weight")  # tensors of `Voters` that have no number
CELL_AXES = {"labels": 3, "matched": 3, "keys": 3, "pattern": 4}  # where T stands; else 2


@dataclass(frozen=True)
class Cells:
    """What example cells of one stride say: the ids' shares of their pixels."""

    labels: Tensor  # (P, N, K, T) in 0–1
    weight: Tensor  # (P, N, T), log of how many cells each stands for; `NO_WEIGHT`: it is unknown

    def prune(self, kept: TokenSelection) -> "Cells":
        """Only the cells that are kept."""
        return Cells(kept.gather(self.labels.transpose(2, 3)).transpose(2, 3), kept.weight)

    def flat(self) -> tuple[Tensor, Tensor]:
        """All examples in one row: labels (P, K, N·T) and weight (P, N·T)."""
        return self.labels.transpose(1, 2).flatten(2), self.weight.flatten(1)


def pool_labels(labels: Tensor, known: Tensor, grid: tuple[int, int]) -> Cells:
    """Labels (P, N, K, H, W) in 0–1 and known (P, N, H, W) bool → cells of a grid.

    The share of an id is taken among the known pixels of a cell; a cell without any does not vote.
    """
    share = F.adaptive_avg_pool2d(known.to(labels.dtype), grid)  # (P, N, h, w)
    inside = labels * known[:, :, None]
    pooled = F.adaptive_avg_pool2d(inside.flatten(0, 1), grid).unflatten(0, labels.shape[:2])
    pooled = pooled / share[:, :, None].clamp(min=1e-6)
    weight = torch.where(share > 0, share.clamp(min=1e-6).log(), NO_WEIGHT)
    return Cells(pooled.flatten(3), weight.flatten(2))


def unit(features: Tensor) -> Tensor:
    """Features of M pictures (M, c, h, w) → unit vectors of their cells (M, h·w, c)."""
    return F.normalize(features.flatten(2).transpose(1, 2), dim=-1)


def cast_votes(query: Tensor, keys: Tensor, cells: Cells) -> Tensor:
    """What example cells say of query cells, in one frozen block.

    Args:
        query: (B, Q, c) unit vectors.
        keys: (P, N, T, c) unit vectors.

    Returns:
        (B, K, MAPS, Q): for each id its share of the votes at both temperatures, how much more
        than its share of all cells that is (log), the largest cosine to a cell of the id and how
        much that is above the largest to a cell that is not, and how much nearer the id's mean
        feature is than the mean of all else.
    """
    labels, weight = cells.flat()
    keys = keys.flatten(1, 2).expand(query.shape[0], -1, -1).to(query.dtype)
    labels, weight = labels.to(query.dtype), weight.to(query.dtype)
    cosine = query @ keys.transpose(1, 2)  # (B, Q, N·T)
    votes = [_share(cosine, labels, weight, scale) for scale in TEMPERATURES]
    counted = weight.exp()[:, None]
    prior = (labels * counted).sum(2) / counted.sum(2).clamp(min=1e-6)  # (P, K)
    gain = (votes[0] + 0.01).log() - (prior[..., None] + 0.01).log()
    known = (weight > NO_WEIGHT / 2)[:, None]
    # A small object may fill no cell by half: then those that it fills most are the object's.
    most = (labels * known).amax(2, keepdim=True)
    enough = torch.minimum(most, labels.new_tensor(0.5)).clamp(min=0.05)
    inside = (labels >= enough) & known
    best, other = _largest(cosine, inside), _largest(cosine, ~inside & known)
    mean = _mean(keys, labels * counted), _mean(keys, (1 - labels) * counted)
    near = [m @ query.transpose(1, 2) for m in mean]  # (B, K, Q)
    return torch.stack([*votes, 0.3 * gain, best, 3 * (best - other), 3 * (near[0] - near[1])], 2)


def cast_self_votes(query: Tensor, guess: Tensor) -> Tensor:
    """What the query's own cells say of each other: (B, Q, c) unit vectors, guess (B, K, Q) in 0–1
    → (B, K, SELF_MAPS, Q).

    Cells alike should have one label (self-support, arXiv 2207.11549).
    """
    cosine = query @ query.transpose(1, 2)
    votes = [guess @ (cosine * scale).softmax(-1).transpose(1, 2) for scale in TEMPERATURES]
    return torch.stack(votes, 2)


def _share(cosine: Tensor, labels: Tensor, weight: Tensor, scale: float) -> Tensor:
    """Labels (P, K, T) averaged by a softmax over cosine (B, Q, T): (B, K, Q)."""
    attention = torch.softmax(cosine * scale + weight[:, None], -1)
    return labels @ attention.transpose(1, 2)


def _largest(cosine: Tensor, among: Tensor) -> Tensor:
    """Largest cosine (B, Q, T) among cells (P, K, T) bool: (B, K, Q); 0 where there are none.

    One id at a time, to save memory; traced at once, so that K stays free in the graph.
    """
    if torch.compiler.is_compiling():
        largest = cosine[:, None].masked_fill(~among[:, :, None], -1.0).amax(-1)
    else:
        each = range(among.shape[1])
        rows = [cosine.masked_fill(~among[:, index, None], -1.0).amax(-1) for index in each]
        largest = torch.stack(rows, 1)
    return largest.masked_fill(~among.any(2)[..., None], 0.0)


def _mean(keys: Tensor, weight: Tensor) -> Tensor:
    """Mean of keys (B, T, c) by weight (P, K, T), as unit vectors (B, K, c)."""
    return F.normalize(weight @ keys, dim=-1)


@dataclass(frozen=True)
class Voters:
    """What is kept of N examples: features of their cells and what these cells say."""

    blocks: Sequence[Tensor]  # (P, N, T, c) each, unit vectors of the frozen blocks
    cells: Sequence[Cells]  # at strides 8, 16, 32
    matched: Tensor  # (P, N, n, T, d), learned features at stride 8
    keys: Tensor  # (P, N, n, T, d), features of the copy path at stride 4
    pattern: Tensor  # (P, N, K, n, T, d), learned features of the labels at stride 4
    weight: Tensor  # (P, N, T), of the cells at stride 4, see `Cells`

    def tensors(self) -> dict[str, Tensor]:
        """All that is kept, by name."""
        named = {f"block.{i}": x for i, x in enumerate(self.blocks)}
        named |= {f"labels.{i}": cells.labels for i, cells in enumerate(self.cells)}
        named |= {f"weight.{i}": cells.weight for i, cells in enumerate(self.cells)}
        return named | {name: getattr(self, name) for name in WHOLE}

    @classmethod
    def from_tensors(cls, named: dict[str, Tensor]) -> "Voters":
        """What `tensors` answered, together again."""
        pairs = zip(indexed_tensors(named, "labels"), indexed_tensors(named, "weight"), strict=True)
        cells = [Cells(*pair) for pair in pairs]
        return cls(indexed_tensors(named, "block"), cells, *(named[name] for name in WHOLE))

    @classmethod
    def concat(cls, several: "Sequence[Voters]") -> "Voters":
        """Those of several prompts of the same ids as one; N grows.

        Where parts keep different numbers of cells, all cells become those of one example.
        """
        parts = [one.tensors() for one in several]
        joined = {}
        for name in parts[0]:
            same = [part[name].to(parts[-1][name].dtype) for part in parts]
            axis = cell_axis(name)
            if len({x.shape[axis] for x in same}) > 1:
                joined[name] = torch.cat([_flat(x, axis) for x in same], axis)
            else:
                joined[name] = torch.cat(same, 1)
        return cls.from_tensors(joined)

    def flat(self) -> "Voters":
        """All cells as those of one example; they say the same."""
        return Voters.from_tensors({n: _flat(x, cell_axis(n)) for n, x in self.tensors().items()})

    def fits(self, count: int) -> bool:
        """Whether this can be of so many examples: N of them, or any number that is `flat`."""
        return all(x.shape[1] in (1, count) for x in self.tensors().values())

    @property
    def nbytes(self) -> int:
        """Size of all that is kept."""
        return sum(x.nbytes for x in self.tensors().values())

    def to(self, kind: torch.dtype | torch.device) -> "Voters":
        """Stored as another dtype, or elsewhere; queries go on in their own. Weights stay
        float32."""

        def moved(name: str, x: Tensor) -> Tensor:
            fixed = isinstance(kind, torch.dtype) and name.startswith("weight")
            return x if fixed else x.to(kind)

        return Voters.from_tensors({n: moved(n, x) for n, x in self.tensors().items()})

    def select(self, which: Tensor) -> "Voters":
        """Other examples for each query: `which` (B, k) of the N; P must be 1."""
        return self.map(lambda x: x[0][which])

    def gather(self, which: Tensor) -> "Voters":
        """Prompts of several of these, N being 1: `which` (B, k) of the P."""
        return self.map(lambda x: x[:, 0][which])

    def map(self, change: Callable[[Tensor], Tensor]) -> "Voters":
        """Change every tensor."""
        return Voters.from_tensors({name: change(x) for name, x in self.tensors().items()})


def cell_axis(name: str) -> int:
    """Where cells stand in a tensor of `Voters`."""
    return CELL_AXES.get(name.partition(".")[0], 2)


def _flat(x: Tensor, axis: int) -> Tensor:
    """(P, N, …, T at `axis`, …) → (P, 1, …, N·T, …)."""
    return x.movedim(1, axis - 1).flatten(axis - 1, axis).unsqueeze(1)
