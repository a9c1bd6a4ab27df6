"""Tokens of examples under joint attention, stored before any query.

Letters: P prompts (1 or B), B queries, N examples, s examples of a chunk, h w rows and columns of
half a canvas, C channels.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from incontext.model.chunks import (
    MemoryChunks,
    TensorChunks,
    gather_examples,
    indexed_tensors,
    iter_chunks,
)
from incontext.model.layers import Block
from incontext.model.tokens.ensemble import JointAttention, merge_streams


@dataclass(frozen=True)
class TokenCache:
    """Tokens of N examples before any query, in the image stream and in the target stream."""

    image: TensorChunks  # (P, s, h, w, C) before the first block
    target: TensorChunks  # the same; precomputed: after the block that the streams merge after
    query_target: Tensor | None = None  # (P, h, w, C): query half of a precomputed target stream

    @classmethod
    def from_tokens(
        cls, tokens: Iterable[tuple[Tensor, Tensor, Any]], storage: TensorChunks
    ) -> "TokenCache":
        """Store tokens (P, s, h, w, C) of both streams, batch by batch.

        The third of each is the selection for independent examples; here all tokens are kept.
        """
        targets = storage.empty()
        for image, target, _ in tokens:
            storage.append(image)
            targets.append(target)
        return cls(storage, targets)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by the names that prompt files use."""
        streams = {"image": self.image, "target": self.target}
        tensors = {
            f"{name}.{index}": x
            for name, chunks in streams.items()
            for index, x in enumerate(iter_chunks(chunks))
        }
        return tensors if self.query_target is None else {**tensors, "shown": self.query_target}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> "TokenCache":
        """Rebuild a cache from `tensors()`, in memory."""
        image, target = (
            MemoryChunks(indexed_tensors(tensors, name)) for name in ("image", "target")
        )
        return cls(image, target, tensors.get("shown"))

    def fits(self, count: int) -> bool:
        """Return True if this caches `count` examples."""
        return count == sum(shape[1] for shape in self.image.shapes())

    @property
    def nbytes(self) -> int:
        """Size of all tensors."""
        query_bytes = 0 if self.query_target is None else self.query_target.nbytes
        return self.image.nbytes + self.target.nbytes + query_bytes

    def to(self, dtype_or_device: torch.dtype | torch.device) -> "TokenCache":
        """Convert or move the tokens; queries are computed in their own dtype."""
        image, target = self.image.empty(), self.target.empty()
        for source, destination in ((self.image, image), (self.target, target)):
            for chunk in iter_chunks(source):
                destination.append(chunk.to(dtype_or_device))
        query_target = self.query_target
        return TokenCache(
            image, target, None if query_target is None else query_target.to(dtype_or_device)
        )

    def precompute_target_stream(
        self, blocks: Sequence[Block], query_target: Tensor, chunk: int | None
    ) -> "TokenCache":
        """Run the target stream through the first blocks: there it does not see the query's image.

        `query_target` (P, h, w, C): the query's target tokens, all of them hidden.
        """
        stream = JointAttention(self.target, chunk)
        for block in blocks:
            query_target = stream.step(block, query_target)
        return replace(self, target=stream.examples, query_target=query_target)

    @classmethod
    def concat(cls, caches: "Sequence[TokenCache]") -> "TokenCache":
        """Concatenate the caches of several prompts; none may have a precomputed target stream."""
        precomputed = any(cache.query_target is not None for cache in caches)
        assert not precomputed, "a precomputed target stream cannot be added to"
        image, target = caches[0].image.empty(), caches[0].target.empty()
        for cache in caches:
            for source, destination in ((cache.image, image), (cache.target, target)):
                for chunk in iter_chunks(source):
                    destination.append(chunk)
        return cls(image, target)

    def select(self, numbers: Tensor) -> "TokenCache":
        """Pick other examples for each query: `numbers` (B, k) of the N; P must be 1.

        The target stream must not be precomputed: it has already been averaged over all examples.
        """
        assert self.query_target is None, "a precomputed target stream is of all examples"
        image, target = self.image.empty(), self.target.empty()
        for source, destination in ((self.image, image), (self.target, target)):
            examples = gather_examples(source, numbers.flatten())
            examples = rearrange(examples, "(b k) 1 h w c -> k b 1 h w c", b=numbers.shape[0])
            for nth in examples:  # the nth example of every query
                destination.append(nth)
        return TokenCache(image, target)

    def begin(
        self,
        blocks: Sequence[Block],
        image: Tensor,
        target: Tensor,
        chunk: int | None,
        rows_above: int,
    ) -> tuple[Tensor, JointAttention]:
        """Run a query through the first blocks, both streams, and merge them.

        `image` and `target` (B, h, w, C): the query's tokens in the two streams; a precomputed
        target stream ignores `target`. Returns the query (B, h, w, C) and the attention that takes
        it through the other blocks.
        """
        cache = self
        if cache.query_target is None:
            cache = self.precompute_target_stream(blocks, target, chunk)
        assert cache.query_target is not None
        attention = JointAttention(self.image, chunk, rows_above)
        for block in blocks:
            image = attention.step(block, image)
        attention.merge(cache.target)
        return merge_streams(image, cache.query_target.to(image.dtype)), attention
