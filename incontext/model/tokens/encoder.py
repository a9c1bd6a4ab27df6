"""Images and targets to tokens, both streams through the blocks, features tapped on the way.

Letters: P prompts (1 or B), B queries, N examples, S examples of a batch, h w token rows and
columns of half a canvas, C channels, M any of these counts; in einops e stands for N.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from incontext.model.chunks import MemoryChunks, TensorChunks
from incontext.model.encoded_prompt import EncodedPrompt, ExampleBatch
from incontext.model.layers import Block, ParameterCache, PatchEmbedding, join_heads, split_heads
from incontext.model.stem import CopyPath, Matches, Stem
from incontext.model.thinning import TokenSelection, any_pixel, object_cells, select_tokens
from incontext.model.tokens.independent import KeyValueCache
from incontext.model.tokens.token_cache import TokenCache
from incontext.model.votes.voters import Voters


@dataclass(frozen=True)
class ImageEmbedding:
    """Images as tokens, with the stem's features: all that no example and no target changes."""

    image: Tensor  # (M, 3, height, width) normalized RGB
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
        # One patch embedding for images and targets, as in the official model.
        self.embed, self.stem, self.copy_path = embed, stem, copy_path
        self.blocks: Sequence[Block] = nn.ModuleList(blocks)  # type: ignore[assignment]
        self.norm = nn.LayerNorm(dim, eps=eps)  # one for all taps, as in the official model
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
    def stream_blocks(self) -> Sequence[Block]:
        """The first blocks, through which the two streams run separately."""
        return self.blocks[: self.merge_after + 1]

    def embed_images(self, images: Tensor) -> ImageEmbedding:
        """Embed images (M, 3, height, width): what no example and no target changes."""
        tokens, skips = self.stem(images) if self.stem else (self.embed(images), [])
        return ImageEmbedding(images, tokens, skips)

    def descriptor(self, embedding: ImageEmbedding) -> Tensor:
        """Describe each image by itself, to find similar ones: (M, 2·C).

        The mean and the spread of its tokens after the first blocks, in which an image attends to
        the upper half of a canvas, that is, to itself alone.
        """
        semantic = torch.ones(1, dtype=torch.bool, device=embedding.tokens.device)
        tokens = self._place(embedding.tokens, self.segment_image, semantic, below=False)
        rows, columns = tokens.shape[1:3]
        half = slice(0, rows)
        for block in self.stream_blocks:
            q, *kv = split_heads(block.project(tokens))
            context = block.attn.attend_rows(q, torch.stack(kv), (2 * rows, columns), half, half)
            tokens = block.finish(tokens, join_heads(context.out, columns))
        flat = rearrange(tokens, "m h w c -> m (h w) c").float()
        return torch.cat([flat.mean(1), flat.std(1)], 1)

    def _select(
        self, batch: ExampleBatch, grid: tuple[int, int], keep_ratio: float, start: int
    ) -> TokenSelection | None:
        """Select the cells of a grid over the examples to keep; `start`: number of the first."""
        if keep_ratio >= 1 and batch.valid is None:
            return None
        valid = None if batch.valid is None else any_pixel(batch.valid, grid)
        marked = object_cells(batch.targets, self.background, grid)
        return select_tokens(marked, keep_ratio, start, valid)

    def _place(self, tokens: Tensor, segment: Tensor, semantic: Tensor, *, below: bool) -> Tensor:
        """Add what tells streams, halves, positions and kinds apart: (P, …, h, w, C), (P,)."""
        # Positions are those of a whole canvas: the example half has the upper rows, the query the
        # lower, also where examples are independent and no canvas is ever stitched.
        rows, columns = tokens.shape[-3:-1]
        position = self.stretched(self.position, 2 * rows, columns)
        position = position[rows:] if below else position[:rows]
        kind = torch.where(semantic[:, None], self.type_semantic, self.type_instance)
        kind = kind.view(kind.shape[0], *[1] * (tokens.dim() - 2), -1)
        return tokens + segment + position + kind

    def _hide(self, target: Tensor, hidden: Tensor | None) -> Tensor:
        """Replace the hidden (True) target tokens (…, h, w, C) by the mask token."""
        # Before segment, position and type are added: those of a hidden patch stay visible.
        if hidden is None:
            return target
        return torch.where(hidden[..., None], self.mask_token.to(target.dtype), target)

    def _embed_targets(
        self, batch: ExampleBatch, hidden: Tensor | None, grid: tuple[int, int]
    ) -> Tensor:
        """Embed the targets of examples (P, S, h, w, C); patches without a label are hidden too."""
        tokens = self.embed(rearrange(batch.targets, "p s c h w -> (p s) c h w"))
        tokens = rearrange(tokens, "(p s) h w c -> p s h w c", p=batch.targets.shape[0])
        tokens = self._hide(tokens, None if hidden is None else hidden[:, None])
        return self._hide(tokens, None if batch.valid is None else ~any_pixel(batch.valid, grid))

    def _embed_batch(
        self,
        batch: ExampleBatch,
        semantic: Tensor,
        hidden: Tensor | None,
        keep_ratio: float,
        start: int,
    ) -> tuple[Tensor, Tensor, TokenSelection | None, Matches | None]:
        """Return the tokens of both streams (P, S, h, w, C), which of them to keep, and matches."""
        images = batch.images
        embedding = self.embed_images(rearrange(images, "p s c h w -> (p s) c h w"))
        image = rearrange(embedding.tokens, "(p s) h w c -> p s h w c", p=images.shape[0])
        grid = _pair(image.shape[-3:-1])
        target = self._embed_targets(batch, hidden, grid)
        matches = None
        if self.copy_path:
            selection = self._select(batch, _pair(embedding.skips[1].shape[-2:]), keep_ratio, start)
            blank = _blank(batch.targets, hidden)
            matches = self.copy_path.cache_examples(embedding.skips, blank).prune(selection)
        return (
            self._place(image, self.segment_image, semantic, below=False),
            self._place(target, self.segment_target, semantic, below=False),
            self._select(batch, grid, keep_ratio, start),
            matches,
        )

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
        """Encode examples to what every query of this prompt can reuse.

        Args:
            examples: batches; patches without a label are hidden like those in `hidden`.
            semantic: (P,) bool.
            hidden: (P, h, w) bool, True = paint: patches of the example targets that the model may
                not see (training only); the same for all N examples.
            chunk: examples attended at once, None: those of a batch.
            storage: where tokens of joint attention are kept, empty; None: in memory.
            precompute_targets: compute the target stream here as far as no query changes it, since
                their targets will all be hidden.
            keep_ratio: share of the keys and values of each example to keep, where they are kept.
            start: number of the first example: which tokens are kept differs by number.
        """
        # In joint attention all tokens go along with the query; nothing can be left out.
        keep_ratio = keep_ratio if self.independent else 1.0
        matches: list[Matches] = []
        count, size, grid = 0, (0, 0), (0, 0)

        def tokens() -> Iterator[tuple[Tensor, Tensor, TokenSelection | None]]:
            nonlocal count, size, grid
            for batch in examples:
                image, target, selection, batch_matches = self._embed_batch(
                    batch, semantic, hidden, keep_ratio, start + count
                )
                matches.extend([batch_matches] if batch_matches else [])
                size, grid = _pair(batch.images.shape[-2:]), _pair(image.shape[-3:-1])
                count += batch.images.shape[1]
                yield image, target, selection

        cache: TokenCache | KeyValueCache
        if self.independent:
            cache = KeyValueCache.from_tokens(self.blocks, self.merge_after, tokens())
        else:
            storage = MemoryChunks() if storage is None else storage
            cache = TokenCache.from_tokens(tokens(), storage)
            # A copy path adds its guess to the query's target tokens, so they depend on the query.
            if count and precompute_targets and not self.copy_path:
                target = self.mask_token.expand(len(semantic), *grid, -1)
                target = self._place(target, self.segment_target, semantic, below=True)
                cache = cache.precompute_target_stream(self.stream_blocks, target, chunk)
        all_matches = Matches.concat(matches) if matches else None
        return EncodedPrompt(count, size, semantic, cache, all_matches)

    def forward(
        self,
        query: ImageEmbedding,
        prompt: EncodedPrompt,
        target: Tensor | None = None,
        hidden: Tensor | None = None,
        chunk: int | None = None,
        rows_above: int = 1,
    ) -> Features:
        """Run B embedded queries with a prompt → features for the decoder.

        `target` (B, 3, height, width) and `hidden` (B, h, w) show a part of the query's target
        (training only, with a prompt whose target stream was not precomputed); without them all
        of it is hidden. `rows_above`: rows of the first example that the decoder wants.
        """
        if target is None:
            target_tokens = self.mask_token.to(query.tokens.dtype).expand_as(query.tokens)
        else:
            target_tokens = self._hide(self.embed(target), hidden)
        copied = colors = None
        if self.copy_path and prompt.matches:
            copied = self.copy_path(query.skips, prompt.matches)
            colors = self.copy_path.colors(copied)
            guess = self.copy_path.guess(copied)
            target_tokens = target_tokens + rearrange(guess, "b c h w -> b h w c")
        semantic = prompt.semantic.expand(target_tokens.shape[0])
        image = self._place(query.tokens, self.segment_image, semantic, below=True)  # (B, h, w, C)
        target_tokens = self._place(target_tokens, self.segment_target, semantic, below=True)
        assert not isinstance(prompt.cache, Voters)  # those of a voting model
        x, examples = prompt.cache.begin(
            self.stream_blocks, image, target_tokens, chunk, rows_above
        )
        taps = []
        for index in range(self.merge_after, len(self.blocks)):
            if index == len(self.blocks) - 1 > self.merge_after:
                x = examples.last_step(self.blocks[index], x)
            elif index > self.merge_after:
                x = examples.step(self.blocks[index], x)
            if index in self.taps:
                seam = examples.seam_rows()
                taps.append(self.norm(x if seam is None else torch.cat([seam, x], 1)))
        above = taps[0].shape[1] - x.shape[1]
        return Features(taps, above, query.image, query.skips, copied, colors)


def _pair(shape: torch.Size) -> tuple[int, int]:
    return shape[0], shape[1]


def stretch(table: Tensor, rows: int, columns: int) -> Tensor:
    """Stretch a position table (g, g, C) over a whole canvas: (rows, columns, C).

    Bicubic, as the official `get_abs_pos`, and in float32 whatever the weights' dtype.
    """
    if table.shape[:2] == (rows, columns):
        return table
    wide = rearrange(table.float(), "h w c -> 1 c h w")
    wide = F.interpolate(wide, size=(rows, columns), mode="bicubic")
    return rearrange(wide.to(table.dtype), "1 c h w -> h w c")


def _blank(targets: Tensor, hidden: Tensor | None) -> Tensor:
    """Set the hidden (P, h, w) patches of targets (P, N, 3, height, width) to 0, the mean color."""
    if hidden is None:
        return targets
    scale = targets.shape[-1] // hidden.shape[-1]
    pixels = repeat(hidden, "p h w -> p 1 1 (h a) (w b)", a=scale, b=scale)
    return targets.masked_fill(pixels, 0.0)
