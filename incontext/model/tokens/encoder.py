"""Pictures and targets to tokens, both streams through the blocks, features tapped on the way.

Letters: P prompts (1 or B), B queries, N examples, h w token rows and columns of half a canvas,
C channels, M any of these counts.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from incontext.model.chunks import MemoryChunks, TensorChunks
from incontext.model.layers import Block, ParameterCache, PatchEmbedding, join_heads, split_heads
from incontext.model.stem import CopyPath, Matches, Stem
from incontext.model.thinning import TokenSelection, any_pixel, object_cells, select_tokens
from incontext.model.tokens.ensemble import TokenCache
from incontext.model.tokens.independent import KeyValueCache
from incontext.model.votes.votes import Voters


@dataclass(frozen=True)
class EncodedPrompt:
    """N examples as far as they can be computed before a query is known."""

    count: int
    size: tuple[int, int]  # height and width of the pictures, which queries share
    semantic: Tensor  # (P,) bool: True = semantic kind, False = instance kind
    cache: TokenCache | KeyValueCache | Voters
    matches: Matches | None = None
    colors: Tensor | None = None  # (P, K, 3) normalized, of the ids that voters vote for

    def tensors(self) -> dict[str, Tensor]:
        """All that is kept, by name."""
        named = {f"known.{name}": x for name, x in self.cache.tensors().items()}
        if self.matches:
            named |= {f"matches.{name}": x for name, x in self.matches.tensors().items()}
        if self.colors is not None:
            named["colors"] = self.colors
        return {"semantic": self.semantic, **named}

    @classmethod
    def from_tensors(
        cls, tensors: dict[str, Tensor], count: int, size: Sequence[int]
    ) -> "EncodedPrompt":
        """What `tensors` answered, together again; believed, as graphs that are traced need it.

        Raises:
            KeyError: a tensor is missing.
        """
        known, matches = (
            {n.removeprefix(part): x for n, x in tensors.items() if n.startswith(part)}
            for part in ("known.", "matches.")
        )
        kind: type[TokenCache] | type[KeyValueCache] | type[Voters] = TokenCache
        if "block.0" in known:
            kind = Voters
        elif "merged.0" in known:
            kind = KeyValueCache
        own = Matches(**matches) if matches else None
        kept, colors = kind.from_tensors(known), tensors.get("colors")
        return cls(count, (size[0], size[1]), tensors["semantic"], kept, own, colors)

    @classmethod
    def parse(cls, tensors: dict[str, Tensor], count: int, size: Sequence[int]) -> "EncodedPrompt":
        """`from_tensors` of what a file says.

        Raises:
            KeyError: a tensor is missing.
            ValueError: `count` or `size` is none, or not of these tensors.
        """
        if not (len(size) == 2 and all(_is_count(side) for side in size)):
            raise ValueError(f"size {list(size)}; accepted: height and width")
        made = cls.from_tensors(tensors, count, size)
        if not _is_count(count) or not made.cache.fits(count):
            raise ValueError(f"{count!r} examples, but its tensors are of another number")
        return made

    @classmethod
    def concat(cls, several: "Sequence[EncodedPrompt]") -> "EncodedPrompt":
        """Prompts of the same model, P and kind as one, in which every example weighs alike.

        The tensors' dtype is that of the last. With joint attention none may be settled.
        """
        if len(several) == 1:
            return several[0]
        first = several[0]
        known: TokenCache | KeyValueCache | Voters
        if isinstance(first.cache, Voters):
            known = Voters.concat([x.cache for x in several if isinstance(x.cache, Voters)])
        elif isinstance(first.cache, TokenCache):
            known = TokenCache.concat([x.cache for x in several if isinstance(x.cache, TokenCache)])
        else:
            same = [x.cache for x in several if isinstance(x.cache, KeyValueCache)]
            known = KeyValueCache.concat(same)
        matches = [one.matches for one in several if one.matches]
        together = Matches.concat(matches) if matches else None
        count = sum(one.count for one in several)
        return cls(count, first.size, first.semantic, known, together, first.colors)

    @property
    def nbytes(self) -> int:
        """Size of all that is kept."""
        matches = self.matches.tensors().values() if self.matches else []
        return self.cache.nbytes + sum(x.nbytes for x in matches)

    def to(self, kind: torch.dtype | torch.device) -> "EncodedPrompt":
        """Stored as another dtype, or elsewhere; queries go on in their own dtype."""
        matches = self.matches.to(kind) if self.matches else None
        semantic = self.semantic if isinstance(kind, torch.dtype) else self.semantic.to(kind)
        colors = self.colors
        if colors is not None and not isinstance(kind, torch.dtype):
            colors = colors.to(kind)
        return replace(
            self, semantic=semantic, cache=self.cache.to(kind), matches=matches, colors=colors
        )

    def select(self, which: Tensor) -> "EncodedPrompt":
        """A prompt for each of B queries, of k examples each: `which` (B, k); P must be 1."""
        matches = self.matches.select(which) if self.matches else None
        known = self.cache.select(which)
        semantic = self.semantic.expand(len(which))
        return EncodedPrompt(which.shape[1], self.size, semantic, known, matches, self.colors)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


class ExampleBatch(NamedTuple):
    """Some of a prompt's examples."""

    images: Tensor  # (P, some, 3, height, width) normalized RGB
    targets: Tensor  # the same shape, labels painted with their colors
    valid: Tensor | None = None  # (P, some, height, width) bool, False: no label; None: all True
    labels: Tensor | None = None  # (P, some, K, height, width) in 0–1; None: read off the targets


@dataclass(frozen=True)
class ImageEmbedding:
    """Pictures (M, 3, height, width) as tokens, and what the stem kept on the way."""

    image: Tensor
    tokens: Tensor  # (M, h, w, C)
    skips: list[Tensor]  # finest first


@dataclass(frozen=True)
class Features:
    """What a decoder may read."""

    taps: list[Tensor]  # (B, above + h, w, C) each
    above: int  # token rows of the first example that stand above the query half
    image: Tensor  # (B, 3, height, width), the query
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
        background: tuple[float, ...],
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
        self.stretched = ParameterCache(stretch)
        self.merge_after, self.taps, self.independent = merge_after, taps, independent
        self.background = background  # normalized RGB of black, which labels leave unpainted

    @property
    def first(self) -> Sequence[Block]:
        """The blocks that the two streams run through apart."""
        return self.blocks[: self.merge_after + 1]

    def embed_images(self, picture: Tensor) -> ImageEmbedding:
        """Pictures (M, 3, height, width) by themselves: what no example and no target changes."""
        tokens, skips = self.stem(picture) if self.stem else (self.embed(picture), [])
        return ImageEmbedding(picture, tokens, skips)

    def descriptor(self, seen: ImageEmbedding) -> Tensor:
        """What pictures are like, to find similar ones: (M, 2·C), the mean and the spread of their
        tokens after the first blocks, each picture by itself."""
        semantic = torch.ones(1, dtype=torch.bool, device=seen.tokens.device)
        tokens = self._place(seen.tokens, self.segment_image, semantic, False)
        rows, columns = tokens.shape[1:3]
        half = slice(0, rows)
        for block in self.first:
            q, *known = split_heads(block.project(tokens))
            found = block.attn.attend_rows(
                q, torch.stack(known), (2 * rows, columns), half, half
            ).out
            tokens = block.finish(tokens, join_heads(found, columns))
        flat = tokens.flatten(1, 2).float()
        return torch.cat([flat.mean(1), flat.std(1)], 1)

    def _chosen(
        self, shown: ExampleBatch, grid: tuple[int, int], share: float, start: int
    ) -> TokenSelection | None:
        """Which cells of a grid over the examples (P, some, …) are kept, `start` being the first's
        number."""
        if share >= 1 and shown.valid is None:
            return None
        known = None if shown.valid is None else any_pixel(shown.valid, grid)
        return select_tokens(
            object_cells(shown.targets, self.background, grid), share, start, known
        )

    def _place(self, tokens: Tensor, segment: Tensor, semantic: Tensor, below: bool) -> Tensor:
        """Add what tells streams, halves, positions and kinds apart: (P, …, h, w, C), (P,)."""
        rows, columns = tokens.shape[-3:-1]
        position = self.stretched(self.position, 2 * rows, columns)
        position = position[rows:] if below else position[:rows]
        kind = torch.where(semantic[:, None], self.type_semantic, self.type_instance)
        kind = kind.view(kind.shape[0], *[1] * (tokens.dim() - 2), -1)
        return tokens + segment + position + kind

    def _hide(self, target: Tensor, hidden: Tensor | None) -> Tensor:
        """Target tokens (…, h, w, C) with the hidden (True) ones replaced by the mask token."""
        if hidden is None:
            return target
        return torch.where(hidden[..., None], self.mask_token.to(target.dtype), target)

    def _targets(self, shown: ExampleBatch, hidden: Tensor | None, grid: tuple[int, int]) -> Tensor:
        """Target tokens of examples (P, some, h, w, C); what is hidden or unknown is hidden."""
        target = self.embed(shown.targets.flatten(0, 1)).unflatten(0, shown.targets.shape[:2])
        target = self._hide(target, None if hidden is None else hidden[:, None])
        return self._hide(target, None if shown.valid is None else ~any_pixel(shown.valid, grid))

    def encode(
        self,
        examples: Iterable[ExampleBatch],
        semantic: Tensor,
        *,
        hidden: Tensor | None = None,
        chunk: int | None = None,
        storage: TensorChunks | None = None,
        precompute_targets: bool = True,
        keep_ratio: float = 1.0,
        start: int = 0,
    ) -> EncodedPrompt:
        """Examples → what every query of this prompt can reuse.

        Args:
            examples: some at a time; patches of which nothing is known are hidden like `hidden`.
            semantic: (P,) bool.
            hidden: (P, h, w) bool, True = paint: patches of the example targets that the model may
                not see (training only); the same for all N examples.
            chunk: examples attended at once, None: those that come together.
            storage: where tokens of joint attention are kept, empty; None: in memory.
            precompute_targets: compute the target stream here as far as no query changes it, since
                their targets will all be hidden.
            keep_ratio: of the keys and values of each example that are kept, where they are.
            start: number of the first example: which tokens are kept differs by number.
        """
        # In joint attention all tokens go along with the query; nothing can be left out.
        keep_ratio = keep_ratio if self.independent else 1.0
        matches: list[Matches] = []
        count, size, grid = 0, (0, 0), (0, 0)

        def tokens() -> Iterator[tuple[Tensor, Tensor, TokenSelection | None]]:
            nonlocal count, size, grid
            for shown in examples:
                seen = self.embed_images(shown.images.flatten(0, 1))
                image = seen.tokens.unflatten(0, shown.images.shape[:2])
                size, grid = _pair(shown.images.shape[-2:]), _pair(image.shape[-3:-1])
                target = self._targets(shown, hidden, grid)
                if self.copy_path:
                    cells = _pair(seen.skips[1].shape[-2:])
                    match = self.copy_path.cache_examples(seen.skips, _blank(shown.targets, hidden))
                    matches.append(
                        match.prune(self._chosen(shown, cells, keep_ratio, start + count))
                    )
                chosen = self._chosen(shown, grid, keep_ratio, start + count)
                count += shown.images.shape[1]
                yield (
                    self._place(image, self.segment_image, semantic, False),
                    self._place(target, self.segment_target, semantic, False),
                    chosen,
                )

        known: TokenCache | KeyValueCache
        if self.independent:
            known = KeyValueCache.of(self.blocks, self.merge_after, tokens())
        else:
            known = TokenCache.of(tokens(), MemoryChunks() if storage is None else storage)
            if count and precompute_targets and not self.copy_path:
                shown = self.mask_token.expand(len(semantic), *grid, -1)
                shown = self._place(shown, self.segment_target, semantic, True)
                known = known.precompute_target_stream(self.first, shown, chunk)
        return EncodedPrompt(
            count, size, semantic, known, Matches.concat(matches) if matches else None
        )

    def forward(
        self,
        seen: ImageEmbedding,
        encoded: EncodedPrompt,
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
        semantic = encoded.semantic.expand(shown.shape[0])
        image = self._place(seen.tokens, self.segment_image, semantic, True)  # (B, h, w, C)
        shown = self._place(shown, self.segment_target, semantic, True)
        assert not isinstance(encoded.cache, Voters)  # those of a model that votes
        query, stream = encoded.cache.begin(self.first, image, shown, chunk, above)
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
        return Features(taps, rows, seen.image, seen.skips, copied, colors)


def _pair(shape: torch.Size) -> tuple[int, int]:
    return shape[0], shape[1]


def stretch(table: Tensor, rows: int, columns: int) -> Tensor:
    """A position table (g, g, C) over a whole canvas: (rows, columns, C) (official
    `get_abs_pos`)."""
    if table.shape[:2] == (rows, columns):
        return table
    wide = F.interpolate(table.permute(2, 0, 1)[None].float(), size=(rows, columns), mode="bicubic")
    return wide[0].permute(1, 2, 0).to(table.dtype)


def _blank(targets: Tensor, hidden: Tensor | None) -> Tensor:
    """Targets (P, N, 3, height, width) with hidden (P, h, w) patches at 0, the mean color."""
    if hidden is None:
        return targets
    scale = targets.shape[-1] // hidden.shape[-1]
    pixels = hidden.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    return targets.masked_fill(pixels[:, None, None], 0.0)
