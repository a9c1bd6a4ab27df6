"""Pictures and targets to tokens, both streams through the blocks, features tapped on the way.

Letters: P prompts (1 or B), B queries, N examples, h w token rows and columns of half a canvas,
C channels, M any of these counts.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from incontext.model.ensemble import JointKnown
from incontext.model.independent import IndependentKnown
from incontext.model.layers import Block, Derived, PatchEmbedding
from incontext.model.parts import InMemory, Parts
from incontext.model.stem import CopyPath, Stem


@dataclass(frozen=True)
class Encoded:
    """N examples as far as they can be computed before a query is known."""

    count: int
    size: tuple[int, int]  # height and width of the pictures, which queries share
    semantic: Tensor  # (P,) bool: True = semantic kind, False = instance kind
    known: JointKnown | IndependentKnown
    matches: tuple[Tensor, Tensor] | None = None  # keys and values of the copy path


@dataclass(frozen=True)
class Seen:
    """Pictures (M, 3, height, width) as tokens, and what the stem kept on the way."""

    picture: Tensor
    tokens: Tensor  # (M, h, w, C)
    skips: list[Tensor]  # finest first


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
        self.stretched = Derived(stretch)
        self.merge_after, self.taps, self.independent = merge_after, taps, independent

    @property
    def first(self) -> Sequence[Block]:
        """The blocks that the two streams run through apart."""
        return self.blocks[: self.merge_after + 1]

    def see(self, picture: Tensor) -> Seen:
        """Pictures (M, 3, height, width) by themselves: what no example and no target changes."""
        tokens, skips = self.stem(picture) if self.stem else (self.embed(picture), [])
        return Seen(picture, tokens, skips)

    def _place(self, tokens: Tensor, segment: Tensor, semantic: Tensor, below: bool) -> Tensor:
        """Add what tells streams, halves, positions and kinds apart: (P, …, h, w, C), (P,)."""
        rows, columns = tokens.shape[-3:-1]
        position = self.stretched(self.position, 2 * rows, columns)
        position = position[rows:] if below else position[:rows]
        kind = torch.where(semantic[:, None], self.type_semantic, self.type_instance)
        kind = kind.view(len(kind), *[1] * (tokens.dim() - 2), -1)
        return tokens + segment + position + kind

    def _hide(self, target: Tensor, hidden: Tensor | None) -> Tensor:
        """Target tokens (…, h, w, C) with the hidden (True) ones replaced by the mask token."""
        if hidden is None:
            return target
        return torch.where(hidden[..., None], self.mask_token.to(target.dtype), target)

    def encode(
        self,
        examples: Iterable[tuple[Tensor, Tensor]],
        semantic: Tensor,
        *,
        hidden: Tensor | None = None,
        chunk: int | None = None,
        parts: Parts | None = None,
        settle: bool = True,
    ) -> Encoded:
        """Examples → what every query of this prompt can reuse.

        Args:
            examples: images and targets, (P, some, 3, height, width) each, some at a time.
            semantic: (P,) bool.
            hidden: (P, h, w) bool, True = paint: patches of the example targets that the model may
                not see (training only); the same for all N examples.
            chunk: examples attended at once, None: those that come together.
            parts: where tokens of joint attention are kept, empty; None: in memory.
            settle: queries will have nothing of their target shown, so that the target stream can
                be computed here where it does not depend on them.
        """
        matches: list[tuple[Tensor, Tensor]] = []
        count, size, grid = 0, (0, 0), (0, 0)

        def tokens() -> Iterator[tuple[Tensor, Tensor]]:
            nonlocal count, size, grid
            for images, targets in examples:
                seen = self.see(images.flatten(0, 1))
                target = self.embed(targets.flatten(0, 1)).unflatten(0, images.shape[:2])
                target = self._hide(target, hidden if hidden is None else hidden[:, None])
                if self.copy_path:
                    matches.append(self.copy_path.remember(seen.skips, _blank(targets, hidden)))
                image = seen.tokens.unflatten(0, images.shape[:2])
                count += images.shape[1]
                size, grid = images.shape[-2:], image.shape[-3:-1]
                yield (
                    self._place(image, self.segment_image, semantic, False),
                    self._place(target, self.segment_target, semantic, False),
                )

        known: JointKnown | IndependentKnown
        if self.independent:
            known = IndependentKnown.of(self.blocks, self.merge_after, tokens())
        else:
            known = JointKnown.of(tokens(), InMemory() if parts is None else parts)
            if settle and not self.copy_path:
                shown = self.mask_token.expand(len(semantic), *grid, -1)
                shown = self._place(shown, self.segment_target, semantic, True)
                known = known.settle(self.first, shown, chunk)
        keys = [torch.cat(x, 2) for x in zip(*matches, strict=True)]
        return Encoded(count, size, semantic, known, (keys[0], keys[1]) if keys else None)

    def forward(
        self,
        seen: Seen,
        encoded: Encoded,
        target: Tensor | None = None,
        hidden: Tensor | None = None,
        chunk: int | None = None,
        above: int = 1,
    ) -> Features:
        """B queries, as `see` sees them, with an encoded prompt → features for the decoder.

        `target` (B, 3, height, width) and `hidden` (B, h, w) show a part of the query's target
        (training only, with a prompt that is not settled); without them all of it is hidden.
        `above`: rows of the first example that the decoder wants.
        """
        if target is None:
            shown = self.mask_token.to(seen.tokens.dtype).expand_as(seen.tokens)
        else:
            shown = self._hide(self.embed(target), hidden)
        copied = colors = None
        if self.copy_path and encoded.matches:
            copied = self.copy_path(seen.skips, encoded.matches)
            colors = self.copy_path.colors(copied)
            shown = shown + self.copy_path.guess(copied).permute(0, 2, 3, 1)
        semantic = encoded.semantic.expand(len(shown))
        image = self._place(seen.tokens, self.segment_image, semantic, True)  # (B, h, w, C)
        shown = self._place(shown, self.segment_target, semantic, True)
        query, stream = encoded.known.begin(self.first, image, shown, chunk, above)
        taps = []
        for index in range(self.merge_after, len(self.blocks)):
            if index == len(self.blocks) - 1 > self.merge_after:
                query = stream.last(self.blocks[index], query)
            elif index > self.merge_after:
                query = stream.step(self.blocks[index], query)
            if index in self.taps:
                seam = stream.above()
                taps.append(self.norm(query if seam is None else torch.cat([seam, query], 1)))
        rows = taps[0].shape[1] - query.shape[1]
        return Features(taps, rows, seen.picture, seen.skips, copied, colors)


def stretch(table: Tensor, rows: int, columns: int) -> Tensor:
    """A position table (g, g, C) over a whole canvas: (rows, columns, C) (official
    `get_abs_pos`)."""
    if table.shape[:2] == (rows, columns):
        return table
    wide = F.interpolate(
        table.permute(2, 0, 1)[None].float(), size=(rows, columns), mode="bicubic"
    )
    return wide[0].permute(1, 2, 0).to(table.dtype)


def _blank(targets: Tensor, hidden: Tensor | None) -> Tensor:
    """Targets (P, N, 3, height, width) with hidden (P, h, w) patches at 0, the mean color."""
    if hidden is None:
        return targets
    scale = targets.shape[-1] // hidden.shape[-1]
    pixels = hidden.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    return targets.masked_fill(pixels[:, None, None], 0.0)
