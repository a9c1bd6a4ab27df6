"""Learned matching, along with the votes of frozen features: of cells, and of labels to copy.

Letters: M pictures, P prompts (1 or B), B queries, N examples, K ids, J pairs of a query and an id,
T cells kept of an example, Q cells of a query, n heads, d channels of a head;
in einops e stands for N.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from incontext.model.attention import Group, grouped_attention
from incontext.model.votes.cells import Cells
from incontext.model.votes.votes import by_rows, weigh

FINE = 4  # stride of the copy path


class Matching(nn.Module):
    """Learned features at stride 8 whose cosine says how alike cells are."""

    def __init__(self, channels: int, heads: int, dim: int) -> None:
        super().__init__()
        self.heads, self.dim = heads, dim
        self.embed = nn.Conv2d(channels, heads * dim, 1)
        self.around = nn.Conv2d(heads * dim, heads * dim, 3, padding=1, groups=heads)
        self.scale = nn.Parameter(torch.full((heads, 1, 1), 2.5))  # log of 1 / temperature

    def features(self, context: Tensor) -> Tensor:
        """(M, C, h, w) → unit vectors (M, n, h·w, d)."""
        x = self.embed(context)
        x = x + self.around(F.relu(x))
        return _split_heads(x, self.heads)

    def forward(self, query: Tensor, keys: Tensor, cells: Cells) -> Tensor:
        """Let cells vote by the cosine of learned features.

        Query (B, n, Q, d), keys (P, N, n, T, d) → (B, K, 2n, Q): the ids' shares of each head's
        votes, and its largest cosine.
        """
        labels, weight = cells.flatten()
        keys = rearrange(keys, "p e n t d -> p n (e t) d").to(query.dtype)
        labels, weight = labels.to(query.dtype), weight[:, None, None].to(query.dtype)

        def cast(rows: Tensor) -> Tensor:
            cosine = rows @ keys.transpose(2, 3)  # (B, n, Q, N·T)
            votes = weigh(cosine, self.scale.exp(), weight).softmax(-1)
            shares = votes @ labels.transpose(1, 2)[:, None]  # (B, n, Q, K)
            shares = rearrange(shares, "b n q k -> b k n q")
            # No einops: K is free in graphs and cannot be passed as a number.
            best = cosine.amax(-1)[:, None].expand(-1, shares.shape[1], -1, -1)
            return torch.cat([shares, best], 2)

        return by_rows(cast, query, query.shape[0] * self.heads * keys.shape[2])


class Copying(nn.Module):
    """Match at stride 4 and copy what the labels look like around the matched cells.

    A head's value is the id's share of a 4×4 cell, then learned features of the labels around it.
    """

    def __init__(self, widths: tuple[int, ...], heads: int, dim: int) -> None:
        super().__init__()
        self.heads, self.dim = heads, dim
        self.fine = nn.Conv2d(widths[1], heads * dim, 1)
        self.coarse = nn.Conv2d(widths[-1], heads * dim, 1)
        self.value = nn.Conv2d(FINE**2, heads * (dim - 1), 3, padding=1)
        self.scale = nn.Parameter(torch.full((heads, 1, 1), 2.0))  # log of 1 / temperature

    def keys(self, skips: Sequence[Tensor]) -> Tensor:
        """Skips of a stem, finest first → unit vectors (M, n, H/4·W/4, d)."""
        fine = self.fine(skips[1])
        x = fine + F.interpolate(self.coarse(skips[-1]), size=fine.shape[-2:], mode="bilinear")
        return _split_heads(x, self.heads)

    def values(self, labels: Tensor) -> Tensor:
        """Labels of ids (M, H, W) in 0–1 → (M, n, H/4·W/4, d)."""
        cells = F.pixel_unshuffle(labels[:, None], FINE)
        features = rearrange(self.value(cells), "m (n d) h w -> m n (h w) d", n=self.heads)
        share = repeat(cells.mean(1), "m h w -> m n (h w) 1", n=self.heads)
        return torch.cat([share, features], -1)

    def forward(self, query: Tensor, keys: Tensor, values: Tensor, weight: Tensor) -> Tensor:
        """Query (J, n, Q, d), keys and values (J, N, n, T, d), weight (J, N, T) → (J, n·d, Q)."""
        keys, values = (
            rearrange(x, "j e n t d -> j n (e t) d").to(query.dtype) for x in (keys, values)
        )
        group = Group(keys, values, rearrange(weight, "j e t -> j 1 1 (e t)"))
        copied = grouped_attention(query * self.scale.exp(), [group], scale=1.0)
        return rearrange(copied, "j n q d -> j (n d) q")


def _split_heads(x: Tensor, heads: int) -> Tensor:
    """(M, n·d, h, w) → unit vectors (M, n, h·w, d), the channels of a head next to each other."""
    x = rearrange(x, "m (n d) h w -> m n (h w) d", n=heads)
    return F.normalize(x, dim=-1).contiguous()
