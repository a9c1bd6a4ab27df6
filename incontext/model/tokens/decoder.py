"""Tapped features to the painting: the official pixel decoder, and one with skips.

Letters: B queries, a token rows above the query half, h w token rows and columns of the query
half, C channels.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from incontext.model.layers import ChannelNorm
from incontext.model.tokens.encoder import Features

# Rows of pixels that are convolved together: what comes of them stays in the cache.
BAND_HEIGHT = 64


class PixelDecoder(nn.Module):
    """Turn each token into its patch of pixels, then apply two convolutions (official `decode`).

    The 3×3 convolution crosses the seam, so rows above the query half are decoded too; they are
    part of the result, and the caller cuts them off.
    """

    rows_above = 1  # token rows above the query half that the painting depends on

    def __init__(self, patch_size: int, embed_dim: int, taps: int, dim: int, eps: float) -> None:
        super().__init__()
        self.embed = nn.Linear(taps * embed_dim, patch_size**2 * dim)
        self.patch_size = patch_size
        self.conv = nn.Conv2d(dim, dim, 3, padding=1)
        self.norm = ChannelNorm(dim, eps=eps)
        self.head = nn.Conv2d(dim, 3, 1)

    def forward(self, features: Features) -> Tensor:
        """→ painting (B, 3, (a + h)·patch, w·patch)."""
        x = self._pixels(torch.cat(features.taps, -1))
        height = x.shape[2]
        bands = []
        for top in range(0, height, BAND_HEIGHT):
            bottom = min(top + BAND_HEIGHT, height)
            # The 3×3 convolution reads one more row on each side, as far as there is one.
            above = min(1, top)
            band = self.conv(x[:, :, top - above : bottom + 1])[:, :, above : above + bottom - top]
            band = rearrange(F.gelu(self.norm(band)), "b c h w -> b h w c")
            bands.append(F.linear(band, self.head.weight[:, :, 0, 0], self.head.bias))
        return rearrange(torch.cat(bands, 1), "b h w c -> b c h w")

    def _pixels(self, tokens: Tensor) -> Tensor:
        """Turn tokens (B, h, w, taps·C) into pixels (B, dim, h·patch, w·patch), channels last.

        One row of pixels of every token at a time: each uses a slice of the weights, and its
        result already lies in memory as the picture does.
        """
        patch = self.patch_size
        weights, biases = (x.chunk(patch) for x in (self.embed.weight, self.embed.bias))
        rows = [F.linear(tokens, w, b) for w, b in zip(weights, biases, strict=True)]
        return rearrange(torch.stack(rows, 2), "b h p w (q c) -> b c (h p) (w q)", q=patch)


class SkipDecoder(nn.Module):
    """Upsample tokens to full size; each stage joins the query's stem features of its stride.

    The copied values join at stride 4, and the painting is what the decoder adds to the copied
    colors: before any training it already is a nearest-neighbor guess.
    """

    rows_above = 0

    def __init__(
        self, widths: tuple[int, ...], embed_dim: int, taps: int, dim: int, copied: int
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(taps * embed_dim, dim)
        skips = [*reversed(widths), 3]
        outputs = [dim, *(max(16, dim >> i) for i in range(len(widths)))]
        extra = [copied if i == len(widths) - 2 else 0 for i in range(len(skips))]
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before + skip + more, width, 3, padding=1),
                nn.GroupNorm(8, width),
                nn.GELU(),
                nn.Conv2d(width, width, 3, padding=1),
                nn.GELU(),
            )
            for before, skip, more, width in zip(
                [dim, *outputs[:-1]], skips, extra, outputs, strict=True
            )
        )
        self.head = nn.Conv2d(outputs[-1], 3, 1)

    def forward(self, features: Features) -> Tensor:
        """→ painting (B, 3, h·patch, w·patch)."""
        x = rearrange(self.embed(torch.cat(features.taps, -1)), "b h w c -> b c h w")
        skips = [*reversed(features.skips), features.image]
        for index, (stage, skip) in enumerate(zip(self.stages, skips, strict=True)):
            if index:
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            inputs = [x, skip.to(x.dtype)]
            if features.copied is not None and index == len(skips) - 3:
                inputs.append(features.copied)
            x = stage(torch.cat(inputs, 1))
        painting = self.head(x)
        if features.colors is None:
            return painting
        guess = F.interpolate(features.colors, size=painting.shape[-2:], mode="bilinear")
        return painting + guess
