"""Pictures and targets to tokens, both streams through the blocks, features tapped on the way.

Letters: S streams, P prompts (1 or B), B queries, N examples, h w token rows and columns of half
a canvas, C channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from incontext.model.ensemble import Independent, Joint, Memory, merge_streams
from incontext.model.layers import Block, PatchEmbedding
from incontext.model.stem import CopyPath, Stem


@dataclass(frozen=True)
class Encoded:
    """N examples as far as they can be computed before a query is known."""

    count: int
    size: tuple[int, int]  # height and width of the pictures, which queries share
    semantic: Tensor  # (P,) bool: True = semantic kind, False = instance kind
    tokens: Tensor | None = None  # (2, P, N, h, w, C), joint attention
    memory: Memory | None = None  # keys and values of every block, independent attention
    matches: tuple[Tensor, Tensor] | None = None  # keys and values of the copy path


@dataclass(frozen=True)
class Features:
    """What a decoder may read."""

    taps: list[Tensor]  # (B, above + h, w, C) each
    above: int  # token rows of the first example that stand above the query half
    picture: Tensor  # (B, 3, height, width), the query
    skips: list[Tensor] = field(default_factory=list)  # of the stem, finest first
    copied: Tensor | None = None  # (B, n·d, height / 4, width / 4)
    colors: Tensor | None = None  # (B, 3, height / 4, width / 4)


class Encoder(nn.Module):
    """The two streams and the blocks. Which attention mode, stem and copy path: `Config`."""

    def __init__(
        self,
        embed: PatchEmbedding,
        blocks: list[Block],
        *,
        position_grid: int,
        merge_after: int,
        taps: tuple[int, ...],
        independent: bool,
        stem: Stem | None,
        copy_path: CopyPath | None,
        eps: float,
    ) -> None:
        super().__init__()
        dim = embed.proj.out_channels
        self.embed, self.stem, self.copy_path = embed, stem, copy_path
        self.blocks: Sequence[Block] = nn.ModuleList(blocks)  # type: ignore[assignment]
        self.norm = nn.LayerNorm(dim, eps=eps)
        self.mask_token = nn.Parameter(torch.zeros(dim))
        self.segment_image = nn.Parameter(torch.zeros(dim))
        self.segment_target = nn.Parameter(torch.zeros(dim))
        self.type_semantic = nn.Parameter(torch.zeros(dim))
        self.type_instance = nn.Parameter(torch.zeros(dim))
        self.position = nn.Parameter(torch.zeros(position_grid, position_grid, dim))
        self.merge_after, self.taps, self.independent = merge_after, taps, independent

    def _position(self, rows: int, columns: int) -> Tensor:
        """The position table stretched over a whole canvas: (2h, w, C) (official `get_abs_pos`)."""
        if self.position.shape[:2] == (rows, columns):
            return self.position
        table = self.position.permute(2, 0, 1)[None].float()
        table = F.interpolate(table, size=(rows, columns), mode="bicubic")
        return table[0].permute(1, 2, 0).to(self.position.dtype)

    def _picture(self, picture: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(M, 3, height, width) → tokens (M, h, w, C) and skips."""
        return self.stem(picture) if self.stem else (self.embed(picture), [])

    def _streams(self, image: Tensor, target: Tensor, semantic: Tensor, below: bool) -> Tensor:
        """Add what tells streams, halves, positions and kinds apart → (2, …, h, w, C).

        `image` and `target` are (P, …, h, w, C), `semantic` is (P,).
        """
        rows, columns = image.shape[-3:-1]
        position = self._position(2 * rows, columns)
        position = position[rows:] if below else position[:rows]
        kind = torch.where(semantic[:, None], self.type_semantic, self.type_instance)
        kind = kind.view(len(kind), *[1] * (image.dim() - 2), -1)
        streams = [image + self.segment_image, target + self.segment_target]
        return torch.stack(streams) + position + kind

    def _hide(self, target: Tensor, hidden: Tensor | None) -> Tensor:
        """Target tokens (…, h, w, C) with the hidden (True) ones replaced by the mask token."""
        if hidden is None:
            return target
        return torch.where(hidden[..., None], self.mask_token.to(target.dtype), target)

    def encode(
        self,
        images: Tensor,
        targets: Tensor,
        semantic: Tensor,
        hidden: Tensor | None = None,
        chunk: int | None = None,
    ) -> Encoded:
        """Examples (P, N, 3, height, width) → what every query of this prompt can reuse.

        `hidden` (P, h, w), bool, True = paint: patches of the example targets that the model may
        not see (training only); the same for all N examples.
        """
        prompts, count = images.shape[:2]
        image, skips = self._picture(images.flatten(0, 1))
        target = self.embed(targets.flatten(0, 1)).unflatten(0, (prompts, count))
        target = self._hide(target, hidden if hidden is None else hidden[:, None])
        tokens = self._streams(image.unflatten(0, (prompts, count)), target, semantic, False)
        matches = None
        if self.copy_path:
            matches = self.copy_path.remember(skips, _blank(targets, hidden))
        size = (images.shape[-2], images.shape[-1])
        if not self.independent:
            return Encoded(count, size, semantic, tokens=tokens, matches=matches)
        memory = Independent.encode(self.blocks, self.merge_after, tokens, chunk)
        return Encoded(count, size, semantic, memory=memory, matches=matches)

    def forward(
        self,
        picture: Tensor,
        encoded: Encoded,
        target: Tensor | None = None,
        hidden: Tensor | None = None,
        chunk: int | None = None,
        above: int = 1,
    ) -> Features:
        """Queries (B, 3, height, width) with an encoded prompt → features for the decoder.

        `target` (B, 3, height, width) and `hidden` (B, h, w) show a part of the query's target
        (training only); without them all of it is hidden.
        """
        image, skips = self._picture(picture)
        if target is None:
            shown = self.mask_token.to(image.dtype).expand_as(image)
        else:
            shown = self._hide(self.embed(target), hidden)
        copied = colors = None
        if self.copy_path and encoded.matches:
            copied = self.copy_path(skips, encoded.matches)
            colors = self.copy_path.colors(copied)
            shown = shown + self.copy_path.guess(copied).permute(0, 2, 3, 1)
        semantic = encoded.semantic.expand(len(picture))
        query = self._streams(image, shown, semantic, True)  # (2, B, h, w, C)
        ensemble: Joint | Independent
        if encoded.memory is not None:
            ensemble = Independent(encoded.memory, encoded.count)
        else:
            assert encoded.tokens is not None
            tokens = encoded.tokens.expand(-1, len(picture), -1, -1, -1, -1)
            ensemble = Joint(tokens, chunk)
        taps = []
        for index, block in enumerate(self.blocks):
            query = ensemble.step(block, query)
            if index == self.merge_after:
                query = merge_streams(query)
                ensemble.merge()
            if index in self.taps:
                seam = ensemble.above(above)
                tap = query[0] if seam is None else torch.cat([seam, query[0]], 1)
                taps.append(self.norm(tap))
        return Features(taps, taps[0].shape[1] - query.shape[2], picture, skips, copied, colors)


def _blank(targets: Tensor, hidden: Tensor | None) -> Tensor:
    """Targets (P, N, 3, height, width) with hidden (P, h, w) patches at 0, the mean color."""
    if hidden is None:
        return targets
    scale = targets.shape[-1] // hidden.shape[-1]
    pixels = hidden.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    return targets.masked_fill(pixels[:, None, None], 0.0)
