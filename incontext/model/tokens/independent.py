"""Independent examples: they see only themselves, the query sees itself and all of them.

So their keys and values are computed once for all queries. Letters: P prompts (1 or B), B queries,
N examples, S examples of a batch, h w rows and columns of half a canvas, C channels, n heads,
L = h·w tokens of a half, K tokens kept of an example, d channels of a head;
in einops e stands for N.
"""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from einops import rearrange
from torch import Tensor

from incontext.model.attention import Group, grouped_attention
from incontext.model.chunks import indexed_tensors, move_weight
from incontext.model.layers import Block, join_heads, split_heads
from incontext.model.thinning import TokenSelection, concat_weights
from incontext.model.tokens.ensemble import merge_streams

STREAMS = ("image", "target", "merged")


class IndependentAttention:
    """A query goes from block to block, attending to itself and to the cached examples.

    Keys of examples get an offset of -log N: the examples together weigh as much as one would, so
    that repeating an example changes nothing and any N meets the weights trained for few. Where
    only some tokens are kept, each stands for as many as its weight says.
    """

    def __init__(self, memory: Sequence[Tensor], weight: Tensor | None) -> None:
        """Start at the first block of `memory`.

        Args:
            memory: keys and values of the blocks to come, each (P, 2, n, N, K, d).
            weight: (P, N, K), log of the number of tokens that a kept one stands for.
        """
        self.memory = iter(memory)
        self.weight = None if weight is None else rearrange(weight, "p e k -> p 1 1 (e k)")

    def step(self, block: Block, query: Tensor) -> Tensor:
        """Run one block: query (B, h, w, C) → the same shape."""
        queries, _, columns = query.shape[:3]
        memory = next(self.memory)
        offset = -math.log(memory.shape[3])
        qkv = split_heads(block.project(query))  # (3, B, n, L, d)
        k, v = rearrange(memory.to(qkv.dtype), "p s n e k d -> s p n (e k) d").expand(
            -1, queries, -1, -1, -1
        )
        groups = [Group(qkv[1], qkv[2]), Group(k, v, self.weight, offset)]
        return block.finish(query, join_heads(grouped_attention(qkv[0], groups), columns))

    last_step = step

    def seam_rows(self) -> None:
        """Return None: no row of an example is decoded."""


class KeyValueCache:
    """Keys and values of N examples in every block, computed before any query.

    Args:
        memory: by stream; of the blocks before the streams are merged for `STREAMS[:2]`, of the
            others for `STREAMS[2]`; each tensor is (P, 2, n, N, K, d).
        weight: (P, N, K), see `IndependentAttention`.
    """

    def __init__(self, memory: dict[str, list[Tensor]], weight: Tensor | None = None) -> None:
        self.memory, self.weight = memory, weight

    @classmethod
    def from_tokens(
        cls,
        blocks: Sequence[Block],
        merge_after: int,
        tokens: Iterable[tuple[Tensor, Tensor, TokenSelection | None]],
    ) -> "KeyValueCache":
        """Run examples through all blocks.

        `tokens`: batches (P, S, h, w, C) of both streams, and which tokens to keep (None: all).

        Raises:
            ValueError: no examples.
        """
        batches: list[dict[str, list[Tensor]]] = []
        weights = []
        for images, targets, selection in tokens:
            weights += [] if selection is None else [selection.weight]
            image, target = (rearrange(x, "p e h w c -> (p e) h w c") for x in (images, targets))
            memory: dict[str, list[Tensor]] = {name: [] for name in STREAMS}
            for block in blocks[: merge_after + 1]:
                image = _run_block(block, image, memory["image"])
                target = _run_block(block, target, memory["target"])
            image = merge_streams(image, target)
            for block in blocks[merge_after + 1 :]:
                image = _run_block(block, image, memory["merged"])
            for name, stream in memory.items():
                kv = [
                    rearrange(x, "(p e) s n l d -> p s n e l d", p=images.shape[0]) for x in stream
                ]
                memory[name] = kv if selection is None else [selection.gather(x) for x in kv]
            batches.append(memory)
        if not batches:
            raise ValueError("a prompt needs one example or more")
        memory = {
            name: [torch.cat(x, 3) for x in zip(*(batch[name] for batch in batches), strict=True)]
            for name in STREAMS
        }
        return cls(memory, torch.cat(weights, 1) if weights else None)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by the names that prompt files use."""
        tensors = {f"{name}.{i}": x for name, m in self.memory.items() for i, x in enumerate(m)}
        return tensors if self.weight is None else {**tensors, "weight": self.weight}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> "KeyValueCache":
        """Rebuild a cache from `tensors()`."""
        memory = {name: indexed_tensors(tensors, name) for name in STREAMS}
        return cls(memory, tensors.get("weight"))

    @classmethod
    def concat(cls, caches: "Sequence[KeyValueCache]") -> "KeyValueCache":
        """Concatenate the caches of several prompts; every example weighs alike.

        N grows where all keep the same number of tokens of an example; otherwise all tokens become
        those of a single example, whose weights say how many each stands for.
        """
        even = len({cache.shape[2] for cache in caches}) == 1
        if not even:
            log_count = math.log(sum(cache.shape[1] for cache in caches))
            caches = [cache.flatten(log_count) for cache in caches]
        memory = {
            name: [
                torch.cat([x.to(tensors[-1].dtype) for x in tensors], 3 if even else 4)
                for tensors in zip(*(cache.memory[name] for cache in caches), strict=True)
            ]
            for name in STREAMS
        }
        weights, shapes = [cache.weight for cache in caches], [cache.shape for cache in caches]
        return cls(memory, concat_weights(weights, shapes, 1 if even else 2))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(P, N, K)."""
        first = self.memory[STREAMS[0]][0].shape
        return first[0], first[3], first[4]

    def fits(self, count: int) -> bool:
        """Return True if this can be of `count` examples: N, or any number once flattened."""
        return count == self.shape[1] or (self.shape[1] == 1 and self.weight is not None)

    def flatten(self, log_count: float | Tensor) -> "KeyValueCache":
        """Make all tokens those of one example, which stands for exp(`log_count`) examples."""
        weight = rearrange(self._weights(), "p e k -> p 1 (e k)") - log_count
        return self._map(lambda x: rearrange(x, "p s n e k d -> p s n 1 (e k) d"), weight)

    def _weights(self) -> Tensor:
        """Return the weights (P, N, K), zeros where all tokens are kept."""
        if self.weight is not None:
            return self.weight
        return torch.zeros(self.shape, device=self.memory[STREAMS[0]][0].device)

    def select(self, numbers: Tensor) -> "KeyValueCache":
        """Pick other examples for each query: `numbers` (B, k) of the N; P must be 1."""
        weight = None if self.weight is None else self.weight[0][numbers]
        return self._map(
            lambda x: rearrange(x[0, :, :, numbers], "s n b e k d -> b s n e k d"), weight
        )

    @property
    def nbytes(self) -> int:
        """Size of all tensors."""
        return sum(x.nbytes for x in self.tensors().values())

    def to(self, dtype_or_device: torch.dtype | torch.device) -> "KeyValueCache":
        """Convert or move keys and values; queries are computed in their own dtype."""
        weight = move_weight(self.weight, dtype_or_device)
        return self._map(lambda x: x.to(dtype_or_device), weight)

    def _map(self, change: Callable[[Tensor], Tensor], weight: Tensor | None) -> "KeyValueCache":
        memory = {name: [change(x) for x in stream] for name, stream in self.memory.items()}
        return KeyValueCache(memory, weight)

    def begin(
        self,
        blocks: Sequence[Block],
        image: Tensor,
        target: Tensor,
        chunk: int | None,
        rows_above: int,
    ) -> tuple[Tensor, IndependentAttention]:
        """Run a query through the first blocks, both streams, and merge them.

        `image` and `target` (B, h, w, C): the query's tokens in the two streams. Returns the query
        (B, h, w, C) and the attention that takes it through the other blocks. `chunk` and
        `rows_above` are for joint attention.
        """
        images, targets, merged = (
            IndependentAttention(self.memory[name], self.weight) for name in STREAMS
        )
        for block in blocks:
            image, target = images.step(block, image), targets.step(block, target)
        return merge_streams(image, target), merged


def _run_block(block: Block, tokens: Tensor, memory: list[Tensor]) -> Tensor:
    """Run examples (M, h, w, C), each by itself, through a block.

    Appends its keys and values (M, 2, n, L, d) to `memory`.
    """
    qkv = block.project(tokens)
    memory.append(rearrange(split_heads(qkv)[1:], "s m n l d -> m s n l d").contiguous())
    return block.finish(tokens, block.attn.attend(qkv))
