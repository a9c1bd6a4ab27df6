"""Independent examples: they see only themselves, the query sees itself and all of them.

So their keys and values are computed once for all queries. Letters: P prompts (1 or B), B queries,
N examples, h w rows and columns of half a canvas, C channels, n heads, L = h·w tokens of a half,
K tokens kept of an example, d channels of a head.
"""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from incontext.model.attention import Group, grouped_attention
from incontext.model.chunks import indexed_tensors, move_weight
from incontext.model.layers import Block, join_heads, split_heads
from incontext.model.thinning import TokenSelection, concat_weights
from incontext.model.tokens.ensemble import merge_streams

STREAMS = ("image", "target", "merged")


class Independent:
    """A query goes from block to block beside what is kept of the examples.

    Keys of examples get an offset of -log N: the examples together weigh as much as one would, so
    that repeating an example changes nothing and any N meets the weights trained for few. Where
    only some tokens are kept, each stands for as many as its weight says.
    """

    def __init__(self, memory: Sequence[Tensor], weight: Tensor | None) -> None:
        """`memory`: keys and values of the blocks to come, each (P, 2, n, N, K, d).

        `weight`: (P, N, K), log of the number of tokens that a kept one stands for.
        """
        self.memory = iter(memory)
        self.weight = None if weight is None else weight.flatten(1)[:, None, None]

    def step(self, block: Block, query: Tensor) -> Tensor:
        """One block: query (B, h, w, C) → the same shape."""
        queries, _, columns = query.shape[:3]
        kept = next(self.memory)
        offset = -math.log(kept.shape[3])
        own = split_heads(block.project(query))  # (3, B, n, L, d)
        k, v = kept.flatten(3, 4).expand(queries, -1, -1, -1, -1).to(own.dtype).unbind(1)
        groups = [Group(own[1], own[2]), Group(k, v, self.weight, offset)]
        found = grouped_attention(own[0], groups)
        return block.finish(query, join_heads(found, columns))

    last = step

    def above(self) -> None:
        """No row of an example takes part in the decoding."""


class KeyValueCache:
    """What is known of N examples before a query comes: keys and values of every block.

    Args:
        memory: those of the blocks before the streams are merged for `STREAMS[:2]`, of the others
            for `STREAMS[2]`; each tensor is (P, 2, n, N, K, d).
        weight: (P, N, K), see `Independent`.
    """

    def __init__(self, memory: dict[str, list[Tensor]], weight: Tensor | None = None) -> None:
        self.memory, self.weight = memory, weight

    @classmethod
    def of(
        cls,
        blocks: Sequence[Block],
        merge_after: int,
        tokens: Iterable[tuple[Tensor, Tensor, TokenSelection | None]],
    ) -> "KeyValueCache":
        """Take examples through all blocks: tokens (P, some, h, w, C) of both streams at a time,
        and which of them to keep (None: all)."""
        found: list[dict[str, list[Tensor]]] = []
        weights = []
        for images, targets, chosen in tokens:
            shape = images.shape[:2]
            weights += [] if chosen is None else [chosen.weight]
            image, target = images.flatten(0, 1), targets.flatten(0, 1)
            here: dict[str, list[Tensor]] = {name: [] for name in STREAMS}
            for block in blocks[: merge_after + 1]:
                image = _pass(block, image, here["image"])
                target = _pass(block, target, here["target"])
            image = merge_streams(image, target)
            for block in blocks[merge_after + 1 :]:
                image = _pass(block, image, here["merged"])
            for kept in here.values():
                kept[:] = [x.unflatten(0, shape).movedim(1, 3) for x in kept]
                kept[:] = kept if chosen is None else [chosen.gather(x) for x in kept]
            found.append(here)
        if not found:
            raise ValueError("a prompt needs one example or more")
        memory = {
            name: [torch.cat(x, 3) for x in zip(*(part[name] for part in found), strict=True)]
            for name in STREAMS
        }
        return cls(memory, torch.cat(weights, 1) if weights else None)

    def tensors(self) -> dict[str, Tensor]:
        """All that is kept, by name."""
        named = {f"{name}.{i}": x for name, m in self.memory.items() for i, x in enumerate(m)}
        return named if self.weight is None else {**named, "weight": self.weight}

    @classmethod
    def from_tensors(cls, named: dict[str, Tensor]) -> "KeyValueCache":
        """What `tensors` answered, together again."""
        return cls({name: indexed_tensors(named, name) for name in STREAMS}, named.get("weight"))

    @classmethod
    def concat(cls, several: "Sequence[KeyValueCache]") -> "KeyValueCache":
        """Those of several prompts as one, in which every example weighs alike.

        Where all keep as many tokens of an example, N grows; otherwise all tokens become those of
        one example, whose weights say what they count for.
        """
        even = len({one.shape[2] for one in several}) == 1
        if not even:
            total = math.log(sum(one.shape[1] for one in several))
            several = [one.flat(total) for one in several]
        memory = {
            name: [
                torch.cat([x.to(same[-1].dtype) for x in same], 3 if even else 4)
                for same in zip(*(one.memory[name] for one in several), strict=True)
            ]
            for name in STREAMS
        }
        weights, shapes = [one.weight for one in several], [one.shape for one in several]
        return cls(memory, concat_weights(weights, shapes, 1 if even else 2))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(P, N, K)."""
        first = self.memory[STREAMS[0]][0].shape
        return first[0], first[3], first[4]

    def fits(self, count: int) -> bool:
        """Whether this can be of so many examples: N of them, or any number that is `flat`."""
        return count == self.shape[1] or (self.shape[1] == 1 and self.weight is not None)

    def flat(self, total: float | Tensor) -> "KeyValueCache":
        """All tokens as those of one example that stands for exp(`total`) of them."""
        flat = self._weights().flatten(1)[:, None] - total
        return self._each(lambda x: x.flatten(3, 4).unsqueeze(3), flat)

    def _weights(self) -> Tensor:
        """(P, N, K), also where all tokens are kept."""
        if self.weight is not None:
            return self.weight
        return torch.zeros(self.shape, device=self.memory[STREAMS[0]][0].device)

    def select(self, which: Tensor) -> "KeyValueCache":
        """Other examples for each query: `which` (B, k) of the N; P must be 1."""
        weight = None if self.weight is None else self.weight[0][which]
        return self._each(lambda x: x[0, :, :, which].movedim(2, 0), weight)

    @property
    def nbytes(self) -> int:
        """Size of all that is kept."""
        return sum(x.nbytes for x in self.tensors().values())

    def to(self, kind: torch.dtype | torch.device) -> "KeyValueCache":
        """Keys and values stored as another dtype, or elsewhere; queries go on in their own."""
        return self._each(lambda x: x.to(kind), move_weight(self.weight, kind))

    def _each(self, change: Callable[[Tensor], Tensor], weight: Tensor | None) -> "KeyValueCache":
        memory = {name: [change(x) for x in m] for name, m in self.memory.items()}
        return KeyValueCache(memory, weight)

    def begin(
        self, first: Sequence[Block], image: Tensor, shown: Tensor, chunk: int | None, above: int
    ) -> tuple[Tensor, Independent]:
        """A query through the first blocks, both streams, merged; and what takes it on.

        `image` and `shown` (B, h, w, C): the query's tokens in the two streams.
        """
        images, targets, merged = (Independent(self.memory[n], self.weight) for n in STREAMS)
        for block in first:
            image, shown = images.step(block, image), targets.step(block, shown)
        return merge_streams(image, shown), merged


def _pass(block: Block, tokens: Tensor, kept: list[Tensor]) -> Tensor:
    """Examples (M, h, w, C), each by itself, through a block; keys and values (M, 2, n, L, d)."""
    qkv = block.project(tokens)
    kept.append(split_heads(qkv)[1:].transpose(0, 1).contiguous())
    return block.finish(tokens, block.attn.attend(qkv))
