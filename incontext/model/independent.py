"""Independent examples: they see only themselves, the query sees itself and all of them.

So their keys and values are computed once for all queries. Letters: P prompts (1 or B), B queries,
N examples, h w rows and columns of half a canvas, C channels, n heads, L = h·w tokens of a half,
K tokens kept of an example, d channels of a head.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from incontext.model.attention import grouped_attention
from incontext.model.ensemble import merge_streams
from incontext.model.layers import Block, join_heads, split_heads


class Independent:
    """A query goes from block to block beside what is kept of the examples.

    Keys of examples get an offset of -log N: the examples together weigh as much as one would, so
    that repeating an example changes nothing and any N meets the weights trained for few. Where
    only K of L tokens are kept, each stands for L / K of them.
    """

    def __init__(self, memory: Sequence[Tensor]) -> None:
        """`memory`: keys and values of the blocks to come, each (P, 2, n, N, K, d)."""
        self.memory = iter(memory)

    def step(self, block: Block, query: Tensor) -> Tensor:
        """One block: query (B, h, w, C) → the same shape."""
        queries, rows, columns = query.shape[:3]
        kept = next(self.memory)
        offset = math.log(rows * columns / (kept.shape[3] * kept.shape[4]))
        k, v = kept.flatten(3, 4).expand(queries, -1, -1, -1, -1).to(query.dtype).unbind(1)
        own = split_heads(block.project(query))  # (3, B, n, L, d)
        found = grouped_attention(own[0], [(own[1], own[2], 0.0), (k, v, offset)])
        return block.finish(query, join_heads(found, columns))

    last = step

    def above(self) -> None:
        """No row of an example takes part in the decoding."""


class IndependentKnown:
    """What is known of N examples before a query comes: keys and values of every block.

    `image` and `target` hold those of the blocks before the streams are merged, `merged` the
    others; each tensor is (P, 2, n, N, K, d).
    """

    def __init__(
        self, image: Sequence[Tensor], target: Sequence[Tensor], merged: Sequence[Tensor]
    ) -> None:
        self.image, self.target, self.merged = list(image), list(target), list(merged)

    @classmethod
    def of(
        cls, blocks: Sequence[Block], merge_after: int, tokens: Iterable[tuple[Tensor, Tensor]]
    ) -> "IndependentKnown":
        """Take examples through all blocks: tokens (P, some, h, w, C) of both streams at a time."""
        streams: tuple[list[list[Tensor]], ...] = ([], [], [])
        for image, target in tokens:
            shape = image.shape[:2]
            image, target = image.flatten(0, 1), target.flatten(0, 1)
            memory: tuple[list[Tensor], ...] = ([], [], [])
            for block in blocks[: merge_after + 1]:
                image = _pass(block, image, memory[0])
                target = _pass(block, target, memory[1])
            image = merge_streams(image, target)
            for block in blocks[merge_after + 1 :]:
                image = _pass(block, image, memory[2])
            for stream, kept in zip(streams, memory, strict=True):
                stream.append([x.unflatten(0, shape).movedim(1, 3) for x in kept])
        return cls(*([torch.cat(x, 3) for x in zip(*s, strict=True)] for s in streams))

    def begin(
        self, first: Sequence[Block], image: Tensor, shown: Tensor, chunk: int | None, above: int
    ) -> tuple[Tensor, Independent]:
        """A query through the first blocks, both streams, merged; and what takes it on.

        `image` and `shown` (B, h, w, C): the query's tokens in the two streams.
        """
        streams = Independent(self.image), Independent(self.target)
        for block in first:
            image, shown = (s.step(block, x) for s, x in zip(streams, (image, shown), strict=True))
        return merge_streams(image, shown), Independent(self.merged)


def _pass(block: Block, tokens: Tensor, kept: list[Tensor]) -> Tensor:
    """Examples (M, h, w, C), each by itself, through a block; keys and values (M, 2, n, L, d)."""
    qkv = block.project(tokens)
    kept.append(split_heads(qkv)[1:].transpose(0, 1).contiguous())
    return block.finish(tokens, block.attn.attend(qkv))
