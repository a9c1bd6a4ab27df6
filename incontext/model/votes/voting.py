"""The voting model: example pixels vote by frozen and learned features, a mixer weighs the votes.

Each id is a channel of its own; the painting is composed of the ids' colors by their probabilities,
so that whatever reads paintings reads this model's too. Letters: M pictures, P prompts (1 or B),
B queries, N examples, V views, K ids, J pairs of a query and an id, h w rows and columns of a grid.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from incontext.model.chunks import TensorChunks
from incontext.model.config import Config
from incontext.model.layers import Block
from incontext.model.stem import Stem
from incontext.model.thinning import NO_WEIGHT, TokenSelection, select_tokens
from incontext.model.tokens.encoder import EncodedPrompt, ExampleBatch, ImageEmbedding
from incontext.model.votes.backbone import Backbone
from incontext.model.votes.matching import Copying, Matching
from incontext.model.votes.mixer import Mixer
from incontext.model.votes.pairs import Pairs
from incontext.model.votes.votes import (
    MAPS,
    SELF_MAPS,
    Cells,
    Voters,
    cast_self_votes,
    cast_votes,
    pool_labels,
    unit,
)

COARSE = 8  # stride of the mixer's grid
FINE_SHARE = 0.5  # of the cells at stride 4 that are kept of an example
TRAINING_SHARE = 0.66  # of what is kept at work, to save time
UNASKED = -30.0  # logit of an id that nothing was asked of


@dataclass(frozen=True)
class ImageFeatures:
    """Pictures by themselves: what no example changes."""

    image: Tensor  # (M, 3, H, W) normalized RGB
    blocks: list[Tensor]  # of the voting blocks, unit vectors (M, h·w, c)
    grids: list[tuple[int, int]]
    context: Tensor  # (M, C, H/8, W/8)
    skips: tuple[Tensor, Tensor]  # at strides 4 and 2
    keys: Tensor  # (M, n, H/4·W/4, d)
    matched: Tensor  # (M, n, H/8·W/8, d)

    def take(self, which: Tensor) -> "ImageFeatures":
        """Some of the pictures, by number."""
        return ImageFeatures(
            self.image[which], [b[which] for b in self.blocks], self.grids, self.context[which],
            (self.skips[0][which], self.skips[1][which]), self.keys[which], self.matched[which],
        )  # fmt: skip


class VotingModel(nn.Module):
    """Frozen backbone and stem, votes of every block, learned matching, copy path, mixer."""

    blocks: Sequence[Block] = ()  # of tokens: it has none

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone, config.mean, config.std)
        self.stem = Stem(config.stem, config.stem_blocks, None)
        self.copying = Copying(config.stem, config.copy_heads, config.copy_dim)
        channels, strides = self.backbone.channels, self.backbone.strides
        self.last = {stride: i for i, stride in enumerate(strides)}  # the last block of a stride
        semantic = [self.last[8], self.last[16], self.last[32]]
        context = sum(channels[i] for i in semantic) + config.stem[2]
        self.matching = Matching(context, config.match_heads, config.match_dim)
        self.first = strides.index(COARSE)  # the blocks from this one on vote
        voting = len(channels) - self.first
        # Which of the strides 8, 16, 32 each voting block has.
        self.levels = [(8, 16, 32).index(stride) for stride in strides[self.first :]]
        own = sum(stride > COARSE for stride in strides[self.first :])
        skips = (channels[self.last[4]] + config.stem[1], channels[self.last[2]] + config.stem[0])
        self.mixer = Mixer(
            voting * MAPS + 2 * config.match_heads, own * SELF_MAPS,
            config.copy_heads * config.copy_dim, context, skips, config.mixer, config.mixer_blocks,
            config.mixer_summary,
        )  # fmt: skip

    def forward(self, images: Tensor, labels: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Every view of an episode as the query of all others, for training.

        Args:
            images: (B, V, 3, H, W) normalized RGB, V at least 2.
            labels: (B, V, K, H, W) in 0–1.
            known: (B, V, H, W) bool.

        Returns:
            Logits (B·V, K, H, W) and first guesses (B·V, K, H/8, W/8), see `vote`; asked is what
            the other views show.
        """
        episodes, views = images.shape[:2]
        look = self.extract_features(images.flatten(0, 1))
        voters = self.build_voters(
            look, labels.flatten(0, 1)[:, None], known.flatten(0, 1)[:, None],
            TRAINING_SHARE,
        )  # fmt: skip
        number = torch.arange(episodes * views, device=images.device).view(episodes, views)
        others = torch.stack(
            [number[:, [v for v in range(views) if v != query]] for query in range(views)], 1
        ).flatten(0, 1)  # (B·V, V - 1)
        return self.vote(look, voters.gather(others), ids_of_other_views(labels).flatten(0, 1))

    @property
    def examples_at_once(self) -> int:
        """Examples that go through the model together unless a call says how many."""
        return 16

    def encode(
        self, images: Tensor, targets: Tensor, semantic: Tensor, *, colors: Tensor | None = None
    ) -> EncodedPrompt:
        """`encode_batches` of all examples at once: images and targets (P, N, 3, H, W)."""
        return self.encode_batches([(images, targets)], semantic, colors=colors)

    def paint_and_copy(
        self,
        queries: Tensor | ImageFeatures | ImageEmbedding,
        encoded: EncodedPrompt,
        *,
        chunk: int | None = None,
    ) -> tuple[Tensor, None]:
        """`paint`; the copy path brings labels here and no colors to judge."""
        return self.paint(queries, encoded, chunk=chunk), None

    def encode_batches(
        self,
        examples: Iterable[ExampleBatch | tuple[Tensor, ...]],
        semantic: Tensor,
        *,
        colors: Tensor | None = None,
        chunk: int | None = None,
        storage: TensorChunks | None = None,
        precompute_targets: bool = True,
        keep_ratio: float = 1.0,
        start: int = 0,
    ) -> EncodedPrompt:
        """Examples that come some at a time → a prompt that any number of queries can share.

        Args:
            examples: images and targets (P, some, 3, H, W), normalized, see `ExampleBatch`.
            semantic: (P,) bool; this model treats both kinds alike.
            colors: (P, K, 3) normalized, of the ids: each pixel of a target is of the id, or of
                the black ground, whose color is nearest.
            keep_ratio: of the cells of each example that are kept.
            start: number of the first example: which cells are kept differs by number.
            chunk, storage, precompute_targets: as for `SegGPT.encode_batches`, which they serve.

        Raises:
            ValueError: no example, no colors, or shapes that do not fit.
        """
        if colors is None:
            raise ValueError("a voting model needs the colors of the ids")
        voters: list[Voters] = []
        count, size = 0, (0, 0)
        for part in examples:
            shown = ExampleBatch(*part)
            check_pictures("example images", shown.images, 5, self.config.patch_size)
            if shown.images.shape != shown.targets.shape:
                raise ValueError(
                    f"example images {tuple(shown.images.shape)} and targets "
                    f"{tuple(shown.targets.shape)} differ"
                )
            labels = shown.labels
            if labels is None:
                labels = self._labels(shown.targets, colors)
            known = torch.ones_like(labels[:, :, 0], dtype=torch.bool)
            known = known if shown.valid is None else shown.valid
            look = self.extract_features(shown.images.flatten(0, 1))
            voters.append(self.build_voters(look, labels, known, keep_ratio, start + count))
            size = (int(shown.images.shape[-2]), int(shown.images.shape[-1]))
            count += shown.images.shape[1]
        if not count:
            raise ValueError("a prompt needs one example or more")
        return EncodedPrompt(count, size, semantic, Voters.concat(voters), None, colors)

    def _labels(self, targets: Tensor, colors: Tensor) -> Tensor:
        """Targets (P, N, 3, H, W) → which pixels are of which id (P, N, K, H, W), 0 or 1."""
        table = torch.cat([self._ground(colors), colors], 1)[:, None, :, :, None, None]
        nearest = (targets[:, :, None] - table).square().sum(3).argmin(2)  # (P, N, H, W)
        ids = torch.arange(1, colors.shape[1] + 1, device=targets.device).view(-1, 1, 1)
        return (nearest[:, :, None] == ids).to(targets.dtype)

    def _ground(self, colors: Tensor) -> Tensor:
        """Normalized black, (P, 1, 3)."""
        mean, std = (colors.new_tensor(x) for x in (self.config.mean, self.config.std))
        return (-mean / std).expand(colors.shape[0], 1, -1)

    def embed_images(self, pictures: Tensor) -> ImageFeatures:
        """`look`, checked.

        Raises:
            ValueError: sizes that are no multiple of the patch.
        """
        check_pictures("pictures", pictures, 4, self.config.patch_size)
        return self.extract_features(pictures)

    def descriptor(self, look: ImageFeatures | ImageEmbedding) -> Tensor:
        """Features (M, D) whose cosine says how alike pictures are: the mean of the last blocks."""
        assert isinstance(look, ImageFeatures)
        last = [max(i for i, at in enumerate(self.levels) if at == level) for level in (1, 2)]
        return torch.cat([F.normalize(look.blocks[i].mean(1), dim=-1) for i in last], 1).float()

    def paint(
        self,
        queries: Tensor | ImageFeatures | ImageEmbedding,
        encoded: EncodedPrompt,
        *,
        chunk: int | None = None,
    ) -> Tensor:
        """Queries (B, 3, H, W), normalized → painting of the query half (B, 3, H, W), normalized:
        the ids' colors and black, weighed by their probabilities.

        The prompt has P = 1, or P = B with a prompt for each query.

        Raises:
            ValueError: shapes that do not fit.
        """
        look = self.embed_images(queries) if isinstance(queries, Tensor) else queries
        assert isinstance(look, ImageFeatures)
        prompts, number = encoded.semantic.shape[0], look.image.shape[0]
        if prompts not in (1, number):
            raise ValueError(
                f"{prompts} prompts for {number} queries; accepted: one, or one for each query"
            )
        assert isinstance(encoded.cache, Voters)
        assert encoded.colors is not None
        logits = self.vote(look, encoded.cache)[0]
        return self.compose(logits, encoded.colors)

    def compose(self, logits: Tensor, colors: Tensor) -> Tensor:
        """Logits (B, K, H, W) and colors (P, K, 3) → painting (B, 3, H, W)."""
        colors = colors.to(logits.dtype)
        table = torch.cat([self._ground(colors), colors], 1).expand(logits.shape[0], -1, -1)
        full = torch.cat([torch.zeros_like(logits[:, :1]), logits], 1).softmax(1)
        return torch.einsum("bkhw,bkc->bchw", full, table)

    def extract_features(self, picture: Tensor) -> ImageFeatures:
        """Pictures (M, 3, H, W), normalized, by themselves."""
        outputs = self.backbone(picture)
        stages = self.stem.skips(picture)
        voting = outputs[self.first :]
        grid = outputs[self.last[COARSE]].shape[-2:]
        parts = [outputs[self.last[stride]] for stride in (8, 16, 32)] + [stages[2]]
        wide = [F.interpolate(_even(x), size=grid, mode="bilinear") for x in parts]
        context = torch.cat(wide, 1)
        middle, fine = (
            torch.cat([_even(outputs[self.last[s]]), _even(stages[i])], 1)
            for s, i in ((4, 1), (2, 0))
        )
        keys = self.copying.keys(stages)
        return ImageFeatures(
            picture, [unit(x) for x in voting],
            [(int(x.shape[-2]), int(x.shape[-1])) for x in voting],
            context, (middle, fine), keys, self.matching.features(context),
        )  # fmt: skip

    def build_voters(
        self, look: ImageFeatures, labels: Tensor, known: Tensor, share: float = 1.0, start: int = 0
    ) -> Voters:
        """Examples → what votes.

        Args:
            look: at P·N pictures.
            labels: (P, N, K, H, W) in 0–1.
            known: (P, N, H, W) bool.
            share: of the cells at stride 4 to keep, see `thinning.choose`.
            start: number of the first example.
        """
        prompts, count = labels.shape[:2]
        sizes = list(dict.fromkeys(look.grids))
        cells = [pool_labels(labels, known, size) for size in sizes]
        fine_size = look.skips[0].shape[-2:]
        fine = pool_labels(labels, known, (fine_size[0], fine_size[1]))
        blocks, matched, keys = (
            [x.unflatten(0, (prompts, count)) for x in kind]
            for kind in (look.blocks, [look.matched], [look.keys])
        )
        inside = (labels * known[:, :, None]).flatten(0, 2)
        pattern = self.copying.values(inside).unflatten(0, labels.shape[:3])
        for level, size in enumerate(sizes):
            kept = _kept(cells[level], size, share, start)
            if kept is None:
                continue
            cells[level] = cells[level].prune(kept)
            blocks = [kept.gather(x) if at == level else x
                      for x, at in zip(blocks, self.levels, strict=True)]  # fmt: skip
            if level == 0:
                matched = [kept.gather(x.transpose(1, 2)).transpose(1, 2) for x in matched]
        kept = _kept(fine, (fine_size[0], fine_size[1]), share * FINE_SHARE, start, share < 1)
        if kept is not None:
            keys = [kept.gather(x.transpose(1, 2)).transpose(1, 2) for x in keys]
            ids = pattern.shape[2]
            pattern = kept.gather(pattern.flatten(2, 3).transpose(1, 2)).transpose(1, 2)
            pattern, fine = pattern.unflatten(2, (ids, -1)), Cells(fine.labels, kept.weight)
        voters = Voters(blocks, cells, matched[0], keys[0], pattern, fine.weight)
        # As a file holds them: other strides in memory would change the last digits.
        return voters.map(Tensor.contiguous)

    def vote(
        self, query: ImageFeatures, voters: Voters, asked: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits (B, K, H, W) of ids against everything else, and a first guess of them
        (B, K, H/8, W/8).

        `asked` (B, K) bool: ids to compute; the others' logits are `UNASKED`. None: all.
        """
        ids = voters.cells[0].labels.shape[2]
        pairs = Pairs(query.image.shape[0], ids, asked)
        grid = query.context.shape[-2:]
        maps = [
            _to_grid(pairs.of(cast_votes(q, k, voters.cells[level])), size, grid)
            for q, k, level, size in zip(
                query.blocks, voters.blocks, self.levels, query.grids, strict=True
            )
        ]
        learned = pairs.of(self.matching(query.matched, voters.matched, voters.cells[0]))
        maps.append(learned.unflatten(-1, grid))
        copied = self._copy(query, voters, pairs)
        narrow = self.mixer.query(query.context, query.skips, query.image)
        narrow = [pairs.each(x) for x in narrow]
        x, guess, copied = self.mixer.begin(torch.cat(maps, 1), copied, narrow[0])
        guess = pairs.spread(guess[:, 0], UNASKED)  # (B, K, H/8, W/8)
        first = guess.sigmoid()
        own = [
            _to_grid(
                pairs.of(cast_self_votes(q, F.adaptive_avg_pool2d(first, size).flatten(2))),
                size,
                grid,
            )
            for q, size in zip(query.blocks, query.grids, strict=True)
            if size != query.grids[0]
        ]
        logits = self.mixer.finish(x, torch.cat(own, 1), copied, narrow)
        return pairs.spread(logits, UNASKED), guess

    def _copy(self, query: ImageFeatures, voters: Voters, pairs: Pairs) -> Tensor:
        """What the copy path brings to pairs: (J, n·d, H/4, W/4)."""
        keys, weight = (pairs.each(x) for x in (voters.keys, voters.weight))
        values = pairs.of_prompts(voters.pattern.transpose(1, 2))
        parts = (pairs.each(query.keys), keys, values, weight)
        # Without gradients a faster kernel matches; frozen parts need none.
        wanted = any(x.requires_grad for x in (*parts, *self.copying.parameters()))
        with torch.set_grad_enabled(torch.is_grad_enabled() and wanted):
            found = self.copying(*parts)
        return found.unflatten(2, tuple(query.skips[0].shape[-2:]))


def _kept(
    cells: Cells, size: tuple[int, int], share: float, start: int, differ: bool = True
) -> TokenSelection | None:
    """Which cells of a grid are kept, of each example in a pattern of its own if they are to
    `differ`; None: all."""
    if share >= 1:
        return None
    marked = cells.labels.amax(2).unflatten(2, size) > 0
    known = (cells.weight > NO_WEIGHT / 2).unflatten(2, size)
    if differ:
        return select_tokens(marked, share, start, known)
    kept = select_tokens(marked.flatten(0, 1)[:, None], share, 0, known.flatten(0, 1)[:, None])
    assert kept is not None
    return TokenSelection(*(x.view(*marked.shape[:2], -1) for x in (kept.indices, kept.weight)))


def ids_of_other_views(labels: Tensor) -> Tensor:
    """Which ids the other views show, labels (B, V, K, H, W): (B, V, K) bool."""
    shown = (labels > 0).flatten(3).any(3)
    return (shown.sum(1, keepdim=True) - shown.long()) > 0


def check_pictures(what: str, x: Tensor, dims: int, patch: int) -> None:
    """Raise ValueError unless `x` has so many dimensions and a size of whole patches."""
    if x.dim() != dims or x.shape[-3] != 3 or x.shape[-1] % patch or x.shape[-2] % patch:
        raise ValueError(
            f"{what} have shape {tuple(x.shape)}; accepted: {dims} dimensions, 3 channels, "
            f"height and width multiples of {patch}"
        )


def _even(x: Tensor) -> Tensor:
    """Features (M, C, h, w) of a standard deviation of 1 in each picture."""
    return x / (x.std(dim=(1, 2, 3), keepdim=True) + 1e-5)


def _to_grid(maps: Tensor, size: tuple[int, int], grid: Sequence[int]) -> Tensor:
    """Maps (J, m, h·w) of a block's cells → (J, m, *grid)."""
    maps = maps.unflatten(-1, size)
    return maps if size == tuple(grid) else F.interpolate(maps, size=tuple(grid), mode="bilinear")
