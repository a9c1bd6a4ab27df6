"""Votes: example cells vote for the id of a query cell, by how alike frozen features are.

HSNet (arXiv 2104.01538) and DCAMA (arXiv 2207.08549) match in every block of a frozen network; here
each block's softmax over all example cells averages their labels, as DCAMA's attention does.
Letters: P prompts (1 or B), B queries, N examples, K ids, T cells kept of an example, Q cells of a
query, c channels of a block.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from incontext.model.thinning import NO_WEIGHT
from incontext.model.votes.cells import Cells

TEMPERATURES = (12.0, 40.0)  # inverse ones: how sharply a query cell picks the cells most like it
# Elements of a table of cosines that stay in a processor's cache: every step over a larger one
# goes through memory.
CACHE_ELEMENTS = 2**20
MAPS = 6  # that `cast_votes` returns for each id
SELF_MAPS = len(TEMPERATURES)  # that `cast_self_votes` returns


def cast_votes(query: Tensor, keys: Tensor, cells: Cells) -> Tensor:
    """Let example cells vote on query cells, in one frozen block.

    Args:
        query: (B, Q, c) unit vectors.
        keys: (P, N, T, c) unit vectors.

    Returns:
        (B, K, MAPS, Q): for each id its share of the votes at both temperatures, how much more
        than its share of all cells that is (log), the largest cosine to a cell of the id and how
        much that is above the largest to a cell that is not, and how much nearer the id's mean
        feature is than the mean of all else. Factors bring the maps to about the same spread.
    """
    labels, weight = cells.flatten()
    keys = keys.flatten(1, 2).expand(query.shape[0], -1, -1).to(query.dtype)
    labels, weight = labels.to(query.dtype), weight.to(query.dtype)

    def cast(rows: Tensor) -> Tensor:
        return _cast_votes(rows, keys, labels, weight)

    return by_rows(cast, query, keys.shape[0] * keys.shape[1])


def by_rows(cast: Callable[[Tensor], Tensor], query: Tensor, row_elements: int) -> Tensor:
    """Let votes be cast on some cells of a query at a time, so that the tables stay in cache.

    On CPU and without gradients, which keep the tables anyway.

    Args:
        cast: (…, Q, c) → (…, Q), each cell by itself.
        query: (…, Q, c).
        row_elements: of the table of one cell.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or query.device.type != "cpu":
        return cast(query)
    rows = max(16, CACHE_ELEMENTS // row_elements)
    return torch.cat([cast(part) for part in query.split(rows, -2)], -1)


def _cast_votes(query: Tensor, keys: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Cast the votes of keys (B, N·T, c) with labels (P, K, N·T) and weight (P, N·T)."""
    cosine = query @ keys.transpose(1, 2)  # (B, Q, N·T)
    votes = [_average_labels(cosine, labels, weight, scale) for scale in TEMPERATURES]
    cell_count = weight.exp()[:, None]
    prior = (labels * cell_count).sum(2) / cell_count.sum(2).clamp(min=1e-6)  # (P, K)
    # 0.01 keeps the logarithm of an absent id finite, and its gradient small.
    gain = (votes[0] + 0.01).log() - (prior[..., None] + 0.01).log()
    valid = (weight > NO_WEIGHT / 2)[:, None]
    inside = object_cells(labels, weight)
    best = _largest_cosine(cosine, inside)
    best_outside = _largest_cosine(cosine, ~inside & valid)
    near_id, near_rest = (
        mean_key(keys, share * cell_count) @ query.transpose(1, 2) for share in (labels, 1 - labels)
    )  # (B, K, Q)
    maps = [*votes, 0.3 * gain, best, 3 * (best - best_outside), 3 * (near_id - near_rest)]
    return torch.stack(maps, 2)


def object_cells(labels: Tensor, weight: Tensor) -> Tensor:
    """Return the cells that are an id's: labels (P, K, T) and weight (P, T) → (P, K, T) bool.

    A small object may fill no cell by half: then the cells that it fills most are the object's.
    """
    valid = (weight > NO_WEIGHT / 2)[:, None]
    largest_share = (labels * valid).amax(2, keepdim=True)
    threshold = torch.minimum(largest_share, labels.new_tensor(0.5)).clamp(min=0.05)
    return (labels >= threshold) & valid


def cast_self_votes(query: Tensor, guess: Tensor) -> Tensor:
    """Let the query's own cells vote on each other: similar cells should have one label.

    (Self-support, arXiv 2207.11549.) `query` (B, Q, c) unit vectors, `guess` (B, K, Q) in 0–1 →
    (B, K, SELF_MAPS, Q).
    """
    cosine = query @ query.transpose(1, 2)
    votes = [guess @ (cosine * scale).softmax(-1).transpose(1, 2) for scale in TEMPERATURES]
    return torch.stack(votes, 2)


def _average_labels(cosine: Tensor, labels: Tensor, weight: Tensor, scale: float) -> Tensor:
    """Average labels (P, K, T) by a softmax over cosine (B, Q, T): (B, K, Q)."""
    attention = torch.softmax(weigh(cosine, scale, weight[:, None]), -1)
    return labels @ attention.transpose(1, 2)


def weigh(cosine: Tensor, scale: float | Tensor, weight: Tensor) -> Tensor:
    """Return cosine * scale + weight; without gradients in one table, since new ones cost time."""
    scores = cosine * scale
    return scores + weight if torch.is_grad_enabled() else scores.add_(weight)


def _largest_cosine(cosine: Tensor, mask: Tensor) -> Tensor:
    """Return the largest cosine (B, Q, T) among the True cells of a mask (P, K, T): (B, K, Q).

    0 where there are none. One id at a time, to save memory; traced at once, so that K stays free
    in the graph. Adding a penalty to the others is faster than filling them in.
    """
    if torch.compiler.is_compiling():
        largest = cosine[:, None].masked_fill(~mask[:, :, None], -1.0).amax(-1)
    else:
        penalty = torch.where(mask, 0.0, -3.0).to(cosine.dtype)  # a cosine is -1 or more
        largest = torch.stack(
            [(cosine + penalty[:, k, None]).amax(-1) for k in range(mask.shape[1])], 1
        )
    return largest.masked_fill(~mask.any(2)[..., None], 0.0)


def mean_key(keys: Tensor, weight: Tensor) -> Tensor:
    """Average keys (B, T, c) by weight (P, K, T), as unit vectors (B, K, c)."""
    return F.normalize(weight @ keys, dim=-1)
