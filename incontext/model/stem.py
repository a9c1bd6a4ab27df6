"""Convolutional stem and copy path: the parts that small checkpoints trained here add.

Letters: M any leading dimensions, P prompts, B queries, N examples, H W rows and columns of the
stride-4 grid of one picture, K cells kept of an example, n heads, d channels of a head;
in einops e stands for N.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from torch import Tensor, nn

from incontext.model.attention import Group, grouped_attention
from incontext.model.chunks import move_weight
from incontext.model.thinning import TokenSelection, concat_weights

COPY_STRIDE = 4


class Residual(nn.Module):
    """Two 3×3 convolutions and a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(M, width, H, W) → the same shape."""
        return x + self.conv2(F.gelu(self.conv1(self.norm(x))))


class Stem(nn.Module):
    """Pictures to tokens through one stage for each halving; every stage's output is a skip."""

    def __init__(self, widths: tuple[int, ...], blocks: int, embed_dim: int | None) -> None:
        super().__init__()
        inputs = (3, *widths[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, width, 3, stride=2, padding=1),
                *(Residual(width) for _ in range(blocks if index else 1)),
            )
            for index, (before, width) in enumerate(zip(inputs, widths, strict=True))
        )
        self.proj = None if embed_dim is None else nn.Conv2d(widths[-1], embed_dim, 1)

    def skips(self, images: Tensor) -> list[Tensor]:
        """(M, 3, height, width) → features at strides 2, 4, …"""
        skips = []
        x = images.contiguous(memory_format=torch.channels_last)
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        return skips

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(M, 3, height, width) → tokens (M, h, w, C) and `skips`."""
        assert self.proj is not None
        skips = self.skips(images)
        return rearrange(self.proj(skips[-1]), "m c h w -> m h w c"), skips


@dataclass(frozen=True)
class Matches:
    """What the copy path keeps of the examples."""

    keys: Tensor  # (P, n, N, K, d)
    values: Tensor  # (P, n, N, K, d)
    weight: Tensor | None = None  # (P, N, K), log of how many cells each stands for; None: zeros

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by the names that prompt files use."""
        weight = {} if self.weight is None else {"weight": self.weight}
        return {"keys": self.keys, "values": self.values, **weight}

    @classmethod
    def concat(cls, parts: "Sequence[Matches]") -> "Matches":
        """Concatenate several prompts into one.

        N grows where all keep the same number of cells of an example; otherwise all cells become
        those of a single example, whose weights say how many each stands for.
        """
        shapes = [(len(m.keys), *m.keys.shape[2:4]) for m in parts]
        even = len({cells for _, _, cells in shapes}) == 1
        weights: list[Tensor | None] = [m.weight for m in parts]
        if not even:
            weights = [None if w is None else rearrange(w, "p e k -> p 1 (e k)") for w in weights]
            shapes = [(prompts, 1, count * cells) for prompts, count, cells in shapes]
        dtype = parts[-1].keys.dtype
        keys, values = (
            torch.cat([x.to(dtype) if even else rearrange(x.to(dtype), "p n e k d -> p n 1 (e k) d")
                       for x in tensors], 2 if even else 3)
            for tensors in ([m.keys for m in parts], [m.values for m in parts])
        )  # fmt: skip
        return cls(keys, values, concat_weights(weights, shapes, 1 if even else 2))

    def prune(self, selection: TokenSelection | None) -> "Matches":
        """Keep the selected cells only, None: all."""
        if selection is None:
            return self
        keys, values = (selection.gather(x) for x in (self.keys, self.values))
        return Matches(keys, values, selection.weight)

    def select(self, numbers: Tensor) -> "Matches":
        """Pick other examples for each query: `numbers` (B, k) of the N; P must be 1."""
        weight = None if self.weight is None else self.weight[0][numbers]
        keys, values = (x[0][:, numbers].transpose(0, 1) for x in (self.keys, self.values))
        return Matches(keys, values, weight)

    def to(self, dtype_or_device: torch.dtype | torch.device) -> "Matches":
        """Convert or move what is stored; queries are computed in their own dtype."""
        keys, values = (x.to(dtype_or_device) for x in (self.keys, self.values))
        return Matches(keys, values, move_weight(self.weight, dtype_or_device))


class CopyPath(nn.Module):
    """Match query pixels to example pixels by cosine and copy their target colors.

    Runs at stride 4 over all examples at once. A head's value is the target's mean color in a
    4×4 cell (3 channels) followed by learned features of the target around it.
    """

    def __init__(self, widths: tuple[int, ...], heads: int, dim: int, embed_dim: int) -> None:
        super().__init__()
        self.heads, self.dim = heads, dim
        self.fine = nn.Conv2d(widths[1], heads * dim, 1)
        self.coarse = nn.Conv2d(widths[-1], heads * dim, 1)
        self.value = nn.Conv2d(3 * COPY_STRIDE**2, heads * (dim - 3), 3, padding=1)
        self.scale = nn.Parameter(torch.full((heads, 1, 1), 2.0))  # log of 1 / temperature
        stride = 2 ** len(widths) // COPY_STRIDE
        self.guess = nn.Conv2d(heads * dim, embed_dim, stride, stride)

    def _features(self, skips: list[Tensor]) -> Tensor:
        """Skips of M pictures → unit vectors (M, n, H·W, d)."""
        fine = self.fine(skips[1])
        coarse = F.interpolate(self.coarse(skips[-1]), size=fine.shape[-2:], mode="bilinear")
        features = rearrange(fine + coarse, "m (n d) h w -> m n (h w) d", n=self.heads)
        # The fused kernels want the channels of a head next to each other in memory.
        return F.normalize(features, dim=-1).contiguous()

    def cache_examples(self, skips: list[Tensor], targets: Tensor) -> Matches:
        """Skips of P·N pictures, targets (P, N, 3, …) → keys and values that queries match."""
        cells = F.pixel_unshuffle(rearrange(targets, "p e c h w -> (p e) c h w"), COPY_STRIDE)
        features = rearrange(self.value(cells), "m (n d) h w -> m n (h w) d", n=self.heads)
        color = reduce(cells, "m (c s) h w -> m (h w) c", "mean", c=3)
        color = repeat(color.to(features.dtype), "m l c -> m n l c", n=self.heads)
        values = torch.cat([color, features], -1)
        keys, values = (
            rearrange(x, "(p e) n l d -> p n e l d", p=targets.shape[0])
            for x in (self._features(skips), values)
        )
        return Matches(keys, values)

    def forward(self, skips: list[Tensor], matches: Matches) -> Tensor:
        """Skips of B query pictures → copied values (B, n·d, H, W), colors first in each head."""
        query = self._features(skips) * self.scale.exp()
        # Autocast leaves unit vectors in float32 while the values have the dtype that is meant;
        # without it a stored prompt may have a smaller dtype than queries, whose dtype counts.
        autocast = torch.is_autocast_enabled(query.device.type)
        dtype = matches.values.dtype if autocast else query.dtype
        keys, values = (
            rearrange(x.to(dtype), "p n e k d -> p n (e k) d").expand(query.shape[0], -1, -1, -1)
            for x in (matches.keys, matches.values)
        )
        weight = matches.weight
        if weight is not None:
            weight = rearrange(weight, "p e k -> p 1 1 (e k)")
        copied = grouped_attention(query.to(dtype), [Group(keys, values, weight)], scale=1.0)
        return rearrange(copied, "b n (h w) d -> b (n d) h w", w=skips[1].shape[-1])

    def colors(self, copied: Tensor) -> Tensor:
        """Average the copied color over the heads: (B, n·d, H, W) → (B, 3, H, W)."""
        heads = rearrange(copied, "b (n d) h w -> b n d h w", n=self.heads)
        return heads[:, :, :3].mean(1)
