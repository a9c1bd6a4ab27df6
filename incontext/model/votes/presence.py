"""Presence: is an id in the query? A small network reads what the matching of frozen blocks says.

A mask is painted wherever something resembles the object; whether it *is* the object shows in how
well both match as wholes, in both directions. Letters: P prompts (1 or B), B queries, K ids, N
examples, T cells of all of them, Q cells of a query, c channels of a block, E pieces of evidence.
"""

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from incontext.model.thinning import NO_WEIGHT
from incontext.model.votes.cells import Cells
from incontext.model.votes.votes import MAPS, TEMPERATURES, mean_key, object_cells

# Of the query's pixels: the mean logit of the most probable ones is evidence.
SHARES = (0.002, 0.01, 0.05, 0.2)
BLOCK_EVIDENCE = MAPS + 8  # pieces that `match_evidence` returns
MASK_EVIDENCE = 2 * len(SHARES) + 1  # pieces that `mask_evidence` returns


class PresenceHead(nn.Module):
    """Read evidence (…, E) → logits (…) of "the id is in the query".

    Args:
        evidence: E.
        width: of the hidden layer.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, evidence: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(evidence))
        self.register_buffer("spread", torch.ones(evidence))
        self.body = nn.Sequential(nn.Linear(evidence, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, evidence: Tensor) -> Tensor:
        """Standardize the evidence and read it; what is far out counts as if at 4 deviations."""
        return self.body(((evidence - self.mean) / self.spread).clamp(-4, 4)).squeeze(-1)


def mask_evidence(logits: Tensor, guess: Tensor) -> Tensor:
    """Summarize logits (B, K, H, W) and first guesses (B, K, h, w): (B, K, MASK_EVIDENCE).

    Mean logits of the most probable pixels, from few to many, and the log of the painted area.
    """
    area = (logits.sigmoid().mean((2, 3)) + 1e-4).log()
    return torch.stack([*_top_means(logits), *_top_means(guess), area], 2)


def match_evidence(
    query: Tensor, keys: Tensor, cells: Cells, maps: Tensor, probability: Tensor
) -> Tensor:
    """Compare the painted part of a query with the examples' object, in one frozen block.

    Args:
        query: (B, Q, c) unit vectors.
        keys: (P, N, T / N, c) unit vectors.
        maps: (B, K, MAPS, Q), what `cast_votes` returned for them.
        probability: (B, K, Q) in 0–1, of the painting.

    Returns:
        (B, K, BLOCK_EVIDENCE): the maps' means over the painted part; cosines between the mean
        features of what is painted or not and of the object or all else; how well cells of the
        object, and of all else, match any cell of the query, and how much of what they match best
        is painted (asking back).
    """
    labels, weight = cells.flatten()
    keys = keys.flatten(1, 2).expand(query.shape[0], -1, -1).to(query.dtype)
    labels, weight = labels.to(query.dtype), weight.to(query.dtype)
    count = weight.exp()[:, None]
    share = probability + 1e-4  # an empty painting is compared as a whole
    share = share / share.sum(2, keepdim=True)
    means = torch.einsum("bkmq,bkq->bkm", maps, share)
    painted, rest = (mean_key(query, x) for x in (probability + 1e-4, 1 - probability + 1e-4))
    near, far = mean_key(keys, labels * count), mean_key(keys, (1 - labels) * count)
    pairs = [(painted, near), (painted, far), (rest, near), (rest, far)]
    whole = torch.stack([(a * b).sum(2) for a, b in pairs], 2)
    cosine = keys @ query.transpose(1, 2)  # (B, T, Q)
    answer = (cosine * TEMPERATURES[1]).softmax(2) @ probability.transpose(1, 2)  # (B, T, K)
    reach = cosine.amax(2)[:, None]  # (B, 1, T)
    inside = object_cells(labels, weight).to(query.dtype)
    outside = (weight > NO_WEIGHT / 2)[:, None] * (1 - inside)
    each = [
        _mean_over(values, cells)
        for values in (reach, answer.transpose(1, 2)) for cells in (inside, outside)
    ]  # fmt: skip
    return torch.cat([means, whole, torch.stack(each, 2)], 2)


def _mean_over(values: Tensor, mask: Tensor) -> Tensor:
    """Average values (B, 1 or K, T) over a mask (P, K, T) of 0 and 1: (B, K)."""
    return (values * mask).sum(2) / mask.sum(2).clamp(min=1)


def _top_means(logits: Tensor) -> Sequence[Tensor]:
    """Average the largest logits of (B, K, h, w), of each share of the pixels: (B, K) each."""
    flat = rearrange(logits, "b k h w -> b k (h w)")
    counts = [max(1, round(share * flat.shape[2])) for share in SHARES]
    top = flat.topk(max(counts), 2).values
    return [top[..., :count].mean(2) for count in counts]
