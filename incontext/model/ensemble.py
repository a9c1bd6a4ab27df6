"""How the tokens of N examples and of one query see each other in a block: the two modes.

Letters: S streams (2 before the merge, 1 after), B queries, N examples, h w rows and columns of
half a canvas, C channels, n heads, d channels of a head. Both modes hold the tokens of the
examples and hand the query through one block after another, so the encoder knows neither.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from incontext.model.layers import Block, attention

Memory = list[Tensor]  # keys and values of every block, each (S, B, 2, n, N·h·w, d)


def _flat(x: Tensor) -> Tensor:
    """(S, B, …) → (S·B, …)."""
    return x.flatten(0, 1)


def merge_streams(x: Tensor) -> Tensor:
    """(2, B, …) → (1, B, …): the mean of the image stream and the target stream."""
    return x.mean(0, keepdim=True)


class Joint:
    """The official feature ensemble: each example forms a canvas with the query, both ways open.

    After the attention of every block the query half is averaged over the examples (official
    `Block.forward` with `merge`), for each stream on its own. So it is the same in all N canvases
    after every block, and is carried once. The mean stands before the output projection here:
    a linear map and a mean commute.
    """

    def __init__(self, examples: Tensor, chunk: int | None) -> None:
        """`examples` (S, B, N, h, w, C); at most `chunk` of them attend at once, None: all."""
        # A copy, since the prompt's tokens serve other queries too.
        self.examples = examples.clone(memory_format=torch.contiguous_format)
        self.chunk = chunk or examples.shape[2]

    def step(self, block: Block, query: Tensor) -> Tensor:
        """One block: query (S, B, h, w, C) → the same shape; the examples move along."""
        streams, queries, count, rows = self.examples.shape[:4]
        asked = block.project(_flat(query))  # (S·B, h, w, 3, n, d)
        total = torch.zeros_like(query)
        finished = []
        for part in self.examples.split(self.chunk, 2):
            size = part.shape[2]
            shown = block.project(part.flatten(0, 2))  # (S·B·size, h, w, 3, n, d)
            canvas = torch.cat([shown, asked.repeat_interleave(size, 0)], 1)
            context = block.attn.attend(canvas)  # (S·B·size, 2h, w, C)
            above, below = context.split([rows, context.shape[1] - rows], 1)
            above = above.unflatten(0, (streams, queries, size))
            moved = block.finish(part, above)
            if torch.is_grad_enabled():
                finished.append(moved)
            else:  # nobody needs the old tokens: what grows with N is this one tensor
                part.copy_(moved)
            total = total + below.unflatten(0, (streams, queries, size)).sum(2)
        if finished:
            self.examples = torch.cat(finished, 2)
        return block.finish(query, total / count)

    def merge(self) -> None:
        """Both streams of the examples become one."""
        self.examples = merge_streams(self.examples)

    def above(self, rows: int) -> Tensor | None:
        """The last `rows` token rows of the first example: (B, rows, w, C)."""
        return self.examples[0, :, 0, self.examples.shape[3] - rows :]


class Independent:
    """Examples see only themselves; the query sees itself and all examples in one softmax.

    Keys of examples get a bias of -log N: the examples together weigh as much as one would, so
    that repeating an example changes nothing and any N meets the weights trained for few.
    """

    def __init__(self, memory: Memory, count: int) -> None:
        """`memory` of `encode`, made from `count` examples."""
        self.memory = memory
        self.count = count
        self.depth = 0

    @staticmethod
    def encode(
        blocks: Sequence[Block], merge_after: int, examples: Tensor, chunk: int | None
    ) -> Memory:
        """Run examples (S, B, N, h, w, C) through all blocks, keep the keys and values."""
        memory: list[list[Tensor]] = [[] for _ in blocks]
        for part in examples.split(chunk or examples.shape[2], 2):
            tokens = part
            for index, block in enumerate(blocks):
                shape = tokens.shape[:3]
                qkv = block.project(tokens.flatten(0, 2))  # (S·B·N, h, w, 3, n, d)
                context = block.attn.attend(qkv).unflatten(0, shape)
                kept = qkv[:, :, :, 1:].unflatten(0, shape)  # (S, B, N, h, w, 2, n, d)
                memory[index].append(kept.flatten(2, 4).permute(0, 1, 3, 4, 2, 5))
                tokens = block.finish(tokens, context)
                if index == merge_after:
                    tokens = merge_streams(tokens)
        return [torch.cat(parts, 4) for parts in memory]

    def step(self, block: Block, query: Tensor) -> Tensor:
        """One block: query (S, B, h, w, C) → the same shape."""
        queries, rows, columns = query.shape[1:4]
        known = self.memory[self.depth].expand(-1, queries, -1, -1, -1, -1)
        self.depth += 1
        own = block.project(query).flatten(2, 3).permute(3, 0, 1, 4, 2, 5)  # (3, S, B, n, h·w, d)
        k = torch.cat([own[1], known[:, :, 0]], 3)
        v = torch.cat([own[2], known[:, :, 1]], 3)
        bias = query.new_zeros(1, k.shape[3])
        bias[:, rows * columns :] = -math.log(self.count)
        context = attention(_flat(own[0]), _flat(k), _flat(v), bias)
        context = context.transpose(1, 2).reshape(query.shape)
        return block.finish(query, context)

    def merge(self) -> None:
        """Nothing to do: the kept keys and values were made after the merge."""

    def above(self, rows: int) -> Tensor | None:
        """None: no row of an example takes part in the decoding."""
