"""The token model: its assembly and its forward pass."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from incontext.model.chunks import TensorChunks
from incontext.model.config import Config
from incontext.model.encoded_prompt import EncodedPrompt, ExampleBatch
from incontext.model.layers import Block, PatchEmbedding
from incontext.model.stem import CopyPath, Stem
from incontext.model.tokens.decoder import PixelDecoder, SkipDecoder
from incontext.model.tokens.encoder import Encoder, ImageEmbedding
from incontext.model.votes.features import ImageFeatures, check_images


class SegGPT(nn.Module):
    """In-context coloring: paint the query's target as the examples' targets are painted."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        dim, eps, side = config.embed_dim, config.layer_norm_eps, config.image_size
        rows = side // config.patch_size
        grid = (2 * rows, rows) if config.relative_position else None
        blocks = [
            Block(dim, config.num_heads, config.mlp_ratio, grid, eps) for _ in range(config.depth)
        ]
        stem = copy_path = None
        if config.stem:
            stem = Stem(config.stem, config.stem_blocks, dim)
        if config.copy_heads:
            copy_path = CopyPath(config.stem, config.copy_heads, config.copy_dim, dim)
        self.encoder = Encoder(
            PatchEmbedding(config.patch_size, dim), blocks,
            position_grid=config.position_grid, merge_after=config.merge_after,
            taps=config.taps, independent=config.example_attention == "independent",
            stem=stem, copy_path=copy_path, eps=eps,
            background=tuple(-m / s for m, s in zip(config.mean, config.std, strict=True)),
        )  # fmt: skip
        count = len(config.taps)
        self.decoder: PixelDecoder | SkipDecoder
        if config.stem:
            copied = config.copy_heads * config.copy_dim
            self.decoder = SkipDecoder(config.stem, dim, count, config.decoder_dim, copied)
        else:
            self.decoder = PixelDecoder(config.patch_size, dim, count, config.decoder_dim, eps)
        if self.encoder.position.is_meta:
            return  # nothing to fill yet, and `normal_` would import torch's compiler
        self.apply(_initialize)
        for name, parameter in self.encoder.named_parameters():
            if (parameter.dim() == 1 and "token" in name) or name.startswith(("seg", "type")):
                nn.init.normal_(parameter, std=0.02)
        nn.init.trunc_normal_(self.encoder.position, std=0.02)

    def encode(
        self,
        images: Tensor,
        targets: Tensor,
        semantic: Tensor,
        *,
        hidden: Tensor | None = None,
        chunk: int | None = None,
        colors: Tensor | None = None,
    ) -> EncodedPrompt:
        """Encode examples to a prompt that any number of queries can share.

        Args:
            images: (P, N, 3, H, W) normalized RGB.
            targets: (P, N, 3, H, W) normalized RGB, labels painted with their colors.
            semantic: (P,) bool, True = semantic kind, False = instance kind.
            hidden: (P, h, w) bool, True = paint; None shows the examples' targets whole.
            chunk: examples attended at once; None: `examples_at_once`.
            colors: of the ids; ignored: the targets contain all that this model needs.

        Raises:
            ValueError: sizes that are no multiple of the patch, or shapes that do not fit.
        """
        batches = self._to_batches(images, targets, chunk)
        return self.encode_batches(batches, semantic, hidden=hidden, chunk=chunk)

    def encode_batches(
        self,
        examples: Iterable[ExampleBatch | tuple[Tensor, ...]],
        semantic: Tensor,
        *,
        hidden: Tensor | None = None,
        chunk: int | None = None,
        storage: TensorChunks | None = None,
        precompute_targets: bool = True,
        keep_ratio: float = 1.0,
        start: int = 0,
        colors: Tensor | None = None,
    ) -> EncodedPrompt:
        """Encode examples that come batch by batch, images and targets (P, S, 3, H, W).

        A third tensor (P, S, H, W) bool, in all batches or in none, says which pixels of a target
        are valid: patches without any are hidden, and with independent examples queries do not
        attend to them at all.

        Args:
            examples: see `ExampleBatch`.
            semantic, hidden, chunk: see `encode`.
            storage: where joint attention keeps their tokens, None: in memory. Together with a
                lazy iterable of examples, memory need not grow with N.
            precompute_targets: also compute what of the target stream is the same for all queries
                whose target is hidden whole.
            keep_ratio: share of each example's keys and values to keep; independent attention only.
            start: number of the first of these examples, see `Encoder.encode`.
            colors: see `encode`.

        Raises:
            ValueError: see `encode`; no example.
        """
        prompt = self.encoder.encode(
            self._check_batches(examples), semantic, hidden=hidden, chunk=chunk, storage=storage,
            precompute_targets=precompute_targets, keep_ratio=keep_ratio, start=start,
        )  # fmt: skip
        if not prompt.count:
            raise ValueError("a prompt needs one example or more")
        return prompt

    def _to_batches(
        self, images: Tensor, targets: Tensor, chunk: int | None
    ) -> Iterable[tuple[Tensor, Tensor]]:
        """Split examples into batches that go through the model together."""
        self._check_examples(images, targets)
        if torch.is_grad_enabled():  # one batch: gradients keep everything anyway
            return [(images, targets)]
        size = chunk or self.examples_at_once
        return zip(images.split(size, 1), targets.split(size, 1), strict=True)

    @property
    def blocks(self) -> Sequence[Block]:
        """Transformer blocks, which can be compiled, and quantized."""
        return self.encoder.blocks

    @property
    def default_thin_to(self) -> int:
        """Number of whole examples whose tokens a query attends to, see `Predictor.prompt`."""
        return 4

    @property
    def examples_at_once(self) -> int:
        """Number of examples that attend together unless a call says otherwise.

        On CPU the canvases of joint attention should stay in the caches, and one of a ViT-L fills
        them; a GPU wants more at once.
        """
        config = self.config
        if config.example_attention == "independent" or not self.encoder.mask_token.is_cpu:
            return 16
        half = (config.image_size // config.patch_size) ** 2 * config.embed_dim
        return max(1, min(16, 2**20 // half))

    def embed_images(self, images: Tensor) -> ImageEmbedding:
        """Embed images (M, 3, H, W), normalized: what no prompt changes.

        Raises:
            ValueError: sizes that are no multiple of the patch.
        """
        self._check("pictures", images, 4)
        return self.encoder.embed_images(images)

    def descriptor(self, embedding: ImageEmbedding | ImageFeatures) -> Tensor:
        """Return features (M, D) whose cosine says how alike images are: `Encoder.descriptor`."""
        assert isinstance(embedding, ImageEmbedding)
        return self.encoder.descriptor(embedding)

    def paint(
        self,
        queries: Tensor | ImageEmbedding | ImageFeatures,
        prompt: EncodedPrompt,
        *,
        chunk: int | None = None,
    ) -> Tensor:
        """Paint queries (B, 3, H, W), normalized → paintings (B, 3, H, W), normalized.

        The prompt has P = 1, or P = B with a prompt for each query. Queries that several prompts
        are to paint are embedded once, by `embed_images`.
        """
        return self.paint_and_copy(queries, prompt, chunk=chunk)[0]

    def paint_and_copy(
        self,
        queries: Tensor | ImageEmbedding | ImageFeatures,
        prompt: EncodedPrompt,
        *,
        chunk: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return `paint`, and the colors that the copy path brought, see `forward`."""
        images = queries if isinstance(queries, Tensor) else queries.image
        self._check_fit(images, prompt)
        embedding = queries
        if isinstance(queries, Tensor):
            embedding = self.encoder.embed_images(queries)
        assert isinstance(embedding, ImageEmbedding)
        features = self.encoder(embedding, prompt, chunk=chunk, rows_above=self.decoder.rows_above)
        painting = self.decoder(features)
        return painting[..., painting.shape[-2] - images.shape[-2] :, :], features.colors

    def forward(
        self,
        queries: Tensor,
        images: Tensor,
        targets: Tensor,
        semantic: Tensor,
        *,
        query_targets: Tensor | None = None,
        hidden: Tensor | None = None,
        chunk: int | None = None,
        whole_canvas: bool = False,
        with_copied: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor | None]:
        """Paint queries by examples, with gradients: `encode` and `paint` in one.

        Args:
            queries: (B, 3, H, W) normalized RGB.
            images, targets, semantic: see `encode`; P is 1 or B.
            query_targets: (B, 3, H, W), with `hidden`: what of it is not hidden is shown.
            hidden: (B, 2h, w) bool over the canvas, True = paint; None: the query half.
            chunk: examples attended at once; None: `examples_at_once`, with gradients all.
            whole_canvas: paint the whole canvas of the first example, (B, 3, 2H, W).
            with_copied: also return the colors that the copy path brought, (B, 3, H/4, W/4), None
                without one: training has a loss for them too.
        """
        if (query_targets is None) != (hidden is None):
            raise ValueError("query_targets and hidden are given together or not at all")
        if whole_canvas and (self.config.example_attention == "independent" or self.config.stem):
            raise ValueError("whole canvases are painted by joint models without a stem only")
        rows = queries.shape[-2] // self.config.patch_size
        upper, lower = (None, None) if hidden is None else hidden.split([rows, rows], 1)
        if upper is not None and len(upper) > len(images) == 1:  # what is hidden differs by query
            images, targets = (x.expand(len(upper), -1, -1, -1, -1) for x in (images, targets))
            semantic = semantic.expand(len(upper))
        prompt = self.encode_batches(
            self._to_batches(images, targets, chunk), semantic, hidden=upper, chunk=chunk,
            precompute_targets=query_targets is None,
        )  # fmt: skip
        self._check_fit(queries, prompt)
        embedding = self.encoder.embed_images(queries)
        rows_above = rows if whole_canvas else self.decoder.rows_above
        features = self.encoder(embedding, prompt, query_targets, lower, chunk, rows_above)
        painting = self.decoder(features)
        if not whole_canvas:
            painting = painting[..., painting.shape[-2] - queries.shape[-2] :, :]
        return (painting, features.colors) if with_copied else painting

    def _check_examples(self, images: Tensor, targets: Tensor) -> None:
        """Raise ValueError unless examples are whole patches, each image with a target."""
        self._check("example images", images, 5)
        if not images.shape[1]:
            raise ValueError("a prompt needs one example or more")
        if images.shape != targets.shape:
            raise ValueError(
                f"example images {tuple(images.shape)} and targets {tuple(targets.shape)} differ"
            )

    def _check_batches(
        self, examples: Iterable[ExampleBatch | tuple[Tensor, ...]]
    ) -> Iterator[ExampleBatch]:
        """Yield the batches, each checked when it comes."""
        for tensors in examples:
            batch = ExampleBatch(*tensors)
            self._check_examples(batch.images, batch.targets)
            yield batch

    def _check(self, name: str, x: Tensor, dims: int) -> None:
        """Raise ValueError unless `x` has `dims` dimensions and a size of whole patches."""
        check_images(name, x, dims, self.config.patch_size)

    def _check_fit(self, queries: Tensor, prompt: EncodedPrompt) -> None:
        """Raise ValueError unless the queries can share the prompt's canvas.

        Independent examples are on no canvas: their cache serves queries of any size.
        """
        self._check("queries", queries, 4)
        joint = self.config.example_attention == "joint"
        if joint and tuple(queries.shape[-2:]) != prompt.size:
            raise ValueError(
                f"queries are {tuple(queries.shape[-2:])}, the examples {prompt.size}; both "
                "halves of a canvas have the same height and width"
            )
        if prompt.semantic.shape[0] not in (1, queries.shape[0]):
            raise ValueError(
                f"{len(prompt.semantic)} prompts for {len(queries)} queries; accepted: one, or "
                "one for each query"
            )


def _initialize(module: nn.Module) -> None:
    """Fill linear maps with a truncated normal (ViT); convolutions keep PyTorch's own (He)."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
