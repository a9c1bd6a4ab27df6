"""The voting model: example pixels vote by frozen and learned features, a mixer weighs the votes.

Each id is a channel of its own; the painting is composed of the ids' colors by their probabilities,
so that whatever reads paintings reads this model's too. Letters: M images, P prompts (1 or B),
B queries or episodes, N examples, S examples of a batch, V views, K ids, J pairs of a query and an
id, h w rows and columns of a grid, T cells kept of an example, n heads, d channels of a head; in
einops e stands for N.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from incontext.model.chunks import TensorChunks
from incontext.model.config import Config
from incontext.model.encoded_prompt import EncodedPrompt, ExampleBatch
from incontext.model.layers import Block
from incontext.model.quality import QualityHead
from incontext.model.stem import Stem
from incontext.model.tokens.encoder import ImageEmbedding
from incontext.model.votes.attribution import attribute
from incontext.model.votes.backbone import Backbone
from incontext.model.votes.cells import pool_labels, unit_vectors
from incontext.model.votes.features import FeatureCache, ImageFeatures, check_images, scale_to_unit
from incontext.model.votes.matching import FINE, Copying, Matching
from incontext.model.votes.mixer import Mixer
from incontext.model.votes.painting import compose, read_targets
from incontext.model.votes.pairs import Pairs, ids_of_other_views
from incontext.model.votes.presence import (
    BLOCK_EVIDENCE,
    MASK_EVIDENCE,
    PresenceHead,
    mask_evidence,
    match_evidence,
)
from incontext.model.votes.voters import (
    STRIDES,
    Voters,
    build_voters,
    select_voters,
    voting_grids,
)
from incontext.model.votes.votes import MAPS, SELF_MAPS, cast_self_votes, cast_votes

COARSE = STRIDES[0]  # stride of the mixer's grid
COARSEST = len(STRIDES) - 1  # level of the blocks that tell presence
TRAINING_SHARE = 0.66  # of what is kept at inference, to save time
UNREQUESTED = -30.0  # logit of an id that was not requested


class VotingModel(nn.Module):
    """Frozen backbone and stem, votes of every block, learned matching, copy path, mixer."""

    blocks: Sequence[Block] = ()  # no transformer blocks to compile or quantize

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone, config.mean, config.std)
        self.stem = Stem(config.stem, config.stem_blocks, None)
        self.copying = Copying(config.stem, config.copy_heads, config.copy_dim)
        channels, strides = self.backbone.channels, self.backbone.strides
        self.last_block = {stride: i for i, stride in enumerate(strides)}  # of each stride
        context = sum(channels[self.last_block[s]] for s in STRIDES) + config.stem[2]
        self.matching = Matching(context, config.match_heads, config.match_dim)
        self.first_voting = strides.index(COARSE)  # the blocks from this one on vote
        self.levels = [STRIDES.index(stride) for stride in strides[self.first_voting :]]
        self_voting = sum(level > 0 for level in self.levels)
        skips = (
            channels[self.last_block[4]] + config.stem[1],
            channels[self.last_block[2]] + config.stem[0],
        )
        self.mixer = Mixer(
            len(self.levels) * MAPS + 2 * config.match_heads, self_voting * SELF_MAPS,
            config.copy_heads * config.copy_dim, context, skips, config.mixer, config.mixer_blocks,
            config.mixer_summary,
        )  # fmt: skip
        self.presence: PresenceHead | None = None
        if config.presence_width:
            evidence = MASK_EVIDENCE + self.levels.count(COARSEST) * BLOCK_EVIDENCE
            self.presence = PresenceHead(evidence, config.presence_width)
        self.quality = QualityHead(config.quality_width) if config.quality_width else None
        self.feature_cache: FeatureCache | None = None

    def forward(self, images: Tensor, labels: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Segment every view of an episode by all others, for training.

        Args:
            images: (B, V, 3, H, W) normalized RGB, V at least 2.
            labels: (B, V, K, H, W) in 0–1.
            valid: (B, V, H, W) bool.

        Returns:
            Logits (B·V, K, H, W) and first guesses (B·V, K, H/8, W/8), see `vote`; requested are
            the ids that the other views show.
        """
        episodes, views = images.shape[:2]
        features = self.extract_features(rearrange(images, "b v c h w -> (b v) c h w"))
        voters = self.build_voters(
            features, rearrange(labels, "b v k h w -> (b v) 1 k h w"),
            rearrange(valid, "b v h w -> (b v) 1 h w"), TRAINING_SHARE,
        )  # fmt: skip
        number = torch.arange(episodes * views, device=images.device).view(episodes, views)
        other_views = torch.stack(
            [number[:, [v for v in range(views) if v != query]] for query in range(views)], 1
        ).flatten(0, 1)  # (B·V, V - 1)
        requested = rearrange(ids_of_other_views(labels), "b v k -> (b v) k")
        return self.vote(features, voters.regroup(other_views), requested)

    @property
    def default_thin_to(self) -> int:
        """Number of whole examples whose cells vote, see `Predictor.prompt`.

        Four cost a query 1.9 times as much as one and are no more accurate than two
        (docs/training.md).
        """
        return 2

    @property
    def examples_at_once(self) -> int:
        """Number of examples that go through the model together unless a call says otherwise."""
        return 16

    def encode(
        self, images: Tensor, targets: Tensor, semantic: Tensor, *, colors: Tensor | None = None
    ) -> EncodedPrompt:
        """Encode all examples at once: images and targets (P, N, 3, H, W), see `encode_batches`."""
        return self.encode_batches([(images, targets)], semantic, colors=colors)

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
        """Encode examples that come batch by batch to a prompt that any query can use.

        Args:
            examples: images and targets (P, S, 3, H, W), normalized, see `ExampleBatch`.
            semantic: (P,) bool; this model treats both kinds alike.
            colors: (P, K, 3) normalized, of the ids: each pixel of a target is of the id, or of
                the black background, whose color is nearest.
            keep_ratio: share of the cells of each example to keep.
            start: number of the first example: which cells are kept differs by number.
            chunk, storage, precompute_targets: for `SegGPT.encode_batches`; ignored.

        Raises:
            ValueError: no example, no colors, or shapes that do not fit.
        """
        if colors is None:
            raise ValueError("a voting model needs the colors of the ids")
        voters: list[Voters] = []
        count, size = 0, (0, 0)
        for tensors in examples:
            batch = ExampleBatch(*tensors)
            voters.append(self._encode_batch(batch, colors, keep_ratio, start + count))
            size = (int(batch.images.shape[-2]), int(batch.images.shape[-1]))
            count += batch.images.shape[1]
        if not count:
            raise ValueError("a prompt needs one example or more")
        return EncodedPrompt(count, size, semantic, Voters.concat(voters), None, colors)

    def _encode_batch(
        self, batch: ExampleBatch, colors: Tensor, keep_ratio: float, start: int
    ) -> Voters:
        """Encode one batch, checked; `start`: number of its first example."""
        check_images("example images", batch.images, 5, self.config.patch_size)
        if batch.images.shape != batch.targets.shape:
            raise ValueError(
                f"example images {tuple(batch.images.shape)} and targets "
                f"{tuple(batch.targets.shape)} differ"
            )
        labels = batch.labels
        if labels is None:
            labels = read_targets(batch.targets, colors, self.config)
        valid = batch.valid
        if valid is None:
            valid = torch.ones_like(labels[:, :, 0], dtype=torch.bool)
        features = self.extract_features(rearrange(batch.images, "p s c h w -> (p s) c h w"))
        return self.build_voters(features, labels, valid, keep_ratio, start)

    def embed_images(self, images: Tensor) -> ImageFeatures:
        """Check images (M, 3, H, W) and extract their features.

        Raises:
            ValueError: sizes that are no multiple of the patch.
        """
        check_images("pictures", images, 4, self.config.patch_size)
        return self.extract_features(images)

    def descriptor(self, features: ImageFeatures | ImageEmbedding) -> Tensor:
        """Return features (M, D) whose cosine says how alike images are: means of late blocks."""
        assert isinstance(features, ImageFeatures)
        last = [max(i for i, at in enumerate(self.levels) if at == level) for level in (1, 2)]
        means = [F.normalize(features.blocks[i].mean(1), dim=-1) for i in last]
        return torch.cat(means, 1).float()

    def paint(
        self,
        queries: Tensor | ImageFeatures | ImageEmbedding,
        prompt: EncodedPrompt,
        *,
        chunk: int | None = None,
    ) -> Tensor:
        """Paint queries (B, 3, H, W), normalized → paintings (B, 3, H, W), normalized.

        A pixel is the mean of the ids' colors and black, weighed by their probabilities.

        Raises:
            ValueError: shapes that do not fit.
        """
        return self.compose(self.answer(queries, prompt), prompt)

    def compose(self, logits: Tensor, prompt: EncodedPrompt) -> Tensor:
        """Compose the paintings (B, 3, H, W), normalized, of what `answer` returned."""
        assert prompt.colors is not None
        return compose(logits, prompt.colors, self.config)

    def answer(
        self, queries: Tensor | ImageFeatures | ImageEmbedding, prompt: EncodedPrompt
    ) -> Tensor:
        """Answer queries (B, 3, H, W), normalized → logits (B, K, H, W) of each id against black.

        The prompt has P = 1, or P = B with a prompt for each query.

        Raises:
            ValueError: shapes that do not fit.
        """
        features = self.embed_images(queries) if isinstance(queries, Tensor) else queries
        assert isinstance(features, ImageFeatures)
        prompts, count = prompt.semantic.shape[0], features.image.shape[0]
        if prompts not in (1, count):
            raise ValueError(
                f"{prompts} prompts for {count} queries; accepted: one, or one for each query"
            )
        assert isinstance(prompt.cache, Voters)
        if self.presence is None:
            return self.vote(features, prompt.cache)[0]
        logits, evidence = self.gather_evidence(features, prompt.cache)
        # No pixel is more surely of the id than the id is in the image.
        return logits.minimum(self.presence(evidence)[..., None, None])

    def paint_and_copy(
        self,
        queries: Tensor | ImageFeatures | ImageEmbedding,
        prompt: EncodedPrompt,
        *,
        chunk: int | None = None,
    ) -> tuple[Tensor, None]:
        """Return `paint` and None: the copy path brings labels here and no colors for a loss."""
        return self.paint(queries, prompt, chunk=chunk), None

    def extract_features(self, images: Tensor) -> ImageFeatures:
        """Extract features of images (M, 3, H, W), normalized, each by itself.

        With a `feature_cache` those of a single image are taken from it where it has them.
        """
        # Cached features hold no graph, so that gradients need new ones; nor can they be traced.
        traced = torch.is_grad_enabled() or torch.compiler.is_compiling()
        if self.feature_cache is None or len(images) != 1 or traced:
            return self._extract_features(images)
        return self.feature_cache.get(images, self._extract_features)

    def _extract_features(self, images: Tensor) -> ImageFeatures:
        outputs = self.backbone(images)
        stages = self.stem.skips(images)
        voting = outputs[self.first_voting :]
        grid = outputs[self.last_block[COARSE]].shape[-2:]
        levels = [outputs[self.last_block[stride]] for stride in STRIDES] + [stages[2]]
        context = torch.cat(
            [F.interpolate(scale_to_unit(x), size=grid, mode="bilinear") for x in levels], 1
        )
        skip4, skip2 = (
            torch.cat([scale_to_unit(outputs[self.last_block[s]]), scale_to_unit(stages[i])], 1)
            for s, i in ((4, 1), (2, 0))
        )
        return ImageFeatures(
            images, [unit_vectors(x) for x in voting],
            [(int(x.shape[-2]), int(x.shape[-1])) for x in voting],
            context, (skip4, skip2), self.copying.keys(stages), self.matching.features(context),
        )  # fmt: skip

    def build_voters(
        self, features: ImageFeatures, labels: Tensor, valid: Tensor, keep_ratio: float = 1.0,
        start: int = 0,
    ) -> Voters:  # fmt: skip
        """Build the voters of examples from features and labels, see `voters.build_voters`."""
        return build_voters(features, labels, valid, self.levels, self.copying, keep_ratio, start)

    def vote(
        self, query: ImageFeatures, voters: Voters, requested: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Let voters vote on queries.

        Args:
            query: features of B images.
            voters: of P prompts, P being 1 or B.
            requested: (B, K) bool, ids to compute; the others' logits are `UNREQUESTED`. None: all.

        Returns:
            Logits (B, K, H, W) of each id against everything else, and a first guess of them
            (B, K, H/8, W/8).
        """
        return self._mix(query, voters, self._cast(query, voters), requested)

    def attribute(
        self, query: ImageFeatures, examples: ImageFeatures, labels: Tensor, valid: Tensor,
        keep_ratio: float, region: Tensor, number: int,
    ) -> Tensor:  # fmt: skip
        """Return which places of examples voted for an id in a region of one query.

        Args:
            examples, labels, valid, keep_ratio: see `voters.build_voters`, P being 1.
            region, number: see `attribution.attribute`.

        Returns:
            (N, H/8, W/8), 0 or more; their sum is the share of the votes that went to the id.
        """
        grids = voting_grids(examples, self.levels)
        selections = [
            select_voters(pool_labels(labels, valid, grid), grid, stride, keep_ratio)
            for grid, stride in zip(grids, (*STRIDES, FINE), strict=True)
        ]
        voters = self.build_voters(examples, labels, valid, keep_ratio)
        return attribute(
            query, voters, self.levels, self.matching, self.copying, selections, grids, region,
            number,
        )  # fmt: skip

    def gather_evidence(self, query: ImageFeatures, voters: Voters) -> tuple[Tensor, Tensor]:
        """Vote, and gather what says whether the ids are in the queries.

        Returns:
            Logits (B, K, H, W) as of `vote`, and the evidence (B, K, E) for `self.presence`.
        """
        block_maps = self._cast(query, voters)
        logits, guess = self._mix(query, voters, block_maps, None)
        probability = logits.sigmoid()
        evidence = [mask_evidence(logits, guess)]
        for q, k, level, size, maps in zip(
            query.blocks, voters.blocks, self.levels, query.grids, block_maps, strict=True
        ):
            if level == COARSEST:  # finer blocks cost more and add nothing
                pooled = F.adaptive_avg_pool2d(probability, size).flatten(2)
                evidence.append(match_evidence(q, k, voters.cells[level], maps, pooled))
        return logits, torch.cat(evidence, 2)

    def _cast(self, query: ImageFeatures, voters: Voters) -> list[Tensor]:
        """Cast the votes of every block: (B, K, MAPS, h·w) each."""
        return [
            cast_votes(q, k, voters.cells[level])
            for q, k, level in zip(query.blocks, voters.blocks, self.levels, strict=True)
        ]

    def _mix(
        self, query: ImageFeatures, voters: Voters, block_maps: Sequence[Tensor],
        requested: Tensor | None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Mix what `_cast` returned with learned matching and copied labels, see `vote`."""
        ids = voters.cells[0].labels.shape[2]
        pairs = Pairs(query.image.shape[0], ids, requested)
        grid = query.context.shape[-2:]
        maps = [
            _to_grid(pairs.select(x), size, grid)
            for x, size in zip(block_maps, query.grids, strict=True)
        ]
        match_maps = self.matching(query.match_features, voters.match_features, voters.cells[0])
        maps.append(rearrange(pairs.select(match_maps), "j m (h w) -> j m h w", w=grid[1]))
        copied = self._copy(query, voters, pairs)
        narrow = self.mixer.narrow_query(query.context, query.skips, query.image)
        narrow = [pairs.from_queries(x) for x in narrow]
        state, guess, copied = self.mixer.begin(torch.cat(maps, 1), copied, narrow[0])
        guess = pairs.scatter(guess[:, 0], UNREQUESTED)  # (B, K, H/8, W/8)
        probability = guess.sigmoid()
        self_votes = []
        for q, level, size in zip(query.blocks, self.levels, query.grids, strict=True):
            if level > 0:  # at stride 8 the query has too many cells to compare them all
                pooled = F.adaptive_avg_pool2d(probability, size).flatten(2)
                votes = pairs.select(cast_self_votes(q, pooled))
                self_votes.append(_to_grid(votes, size, grid))
        logits = self.mixer.finish(state, torch.cat(self_votes, 1), copied, narrow)
        return pairs.scatter(logits, UNREQUESTED), guess

    def _copy(self, query: ImageFeatures, voters: Voters, pairs: Pairs) -> Tensor:
        """Copy labels to pairs: (J, n·d, H/4, W/4)."""
        keys, weight = (pairs.from_queries(x) for x in (voters.keys, voters.weight))
        values = pairs.from_prompts(voters.pattern.transpose(1, 2))
        inputs = (pairs.from_queries(query.keys), keys, values, weight)
        # Without gradients a faster kernel matches; frozen parts need none.
        differentiable = any(x.requires_grad for x in (*inputs, *self.copying.parameters()))
        with torch.set_grad_enabled(torch.is_grad_enabled() and differentiable):
            copied = self.copying(*inputs)
        return rearrange(copied, "j c (h w) -> j c h w", w=query.skips[0].shape[-1])


def _to_grid(maps: Tensor, size: tuple[int, int], grid: Sequence[int]) -> Tensor:
    """Resize maps (J, m, h·w) of a block's cells to a grid: (J, m, *grid)."""
    maps = rearrange(maps, "j m (h w) -> j m h w", w=size[1])
    return maps if size == tuple(grid) else F.interpolate(maps, size=tuple(grid), mode="bilinear")
