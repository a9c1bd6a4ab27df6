"""The official feature ensemble: how N examples and one query see each other, both ways open.

Letters: P prompts (1 or B), B queries, N examples, h w rows and columns of half a canvas, C
channels, n heads, L = h·w tokens of a half, d channels of a head; s examples of a piece.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from incontext.model.attention import can_merge
from incontext.model.chunks import (
    MemoryChunks,
    TensorChunks,
    gather_examples,
    indexed_tensors,
    iter_chunks,
)
from incontext.model.layers import Block, join_heads, split_heads

# What a piece of examples and the query see of each other: (above, below), see `_canvases`.
CanvasAttention = Callable[[Tensor], tuple[Tensor, Tensor]]


def merge_streams(image: Tensor, target: Tensor) -> Tensor:
    """The mean of the image stream and the target stream."""
    return (image + target) / 2


class Joint:
    """Each example forms a canvas with the query, and the query half is averaged over them.

    The mean is taken after the attention of every block (official `Block.forward` with `merge`),
    for each stream on its own. So the query half is the same in all N canvases after every block,
    and is carried once. The mean stands before the output projection here: a linear map and a mean
    commute.
    """

    def __init__(self, examples: TensorChunks, chunk: int | None = None, above: int = 0) -> None:
        """`examples`: parts (P, some, h, w, C), left as they are.

        At most `chunk` of them attend at once, None: a part. `above`: so many rows of the first
        example, next to the seam, are asked for after the last block.
        """
        self.examples, self.chunk, self.rows_above = examples, chunk, above
        self.fresh = False  # whether `examples` are our own, made by an earlier block

    def step(self, block: Block, query: Tensor) -> Tensor:
        """One block: query (B, h, w, C) → the same shape; the examples move along."""
        if [shape[1] for shape in self.examples.shapes()] == [1]:
            return self._alone(block, query)
        look = (self._halves if can_merge(query) else self._canvases)(block, query)
        moved = self.examples if self.fresh else self.examples.empty()
        total, count = torch.zeros_like(query), 0
        for index, part in enumerate(iter_chunks(self.examples)):
            pieces = []
            for piece in self._pieces(part, query):
                above, below = look(piece)
                pieces.append(block.finish(piece, above))
                total, count = total + below.sum(1), count + piece.shape[1]
            on = pieces[0] if len(pieces) == 1 else torch.cat(pieces, 1)
            if self.fresh:
                moved[index] = on
            else:
                moved.append(on)
        self.examples, self.fresh = moved, True
        return block.finish(query, total / count)

    def _alone(self, block: Block, query: Tensor) -> Tensor:
        """`step` with one example: one canvas, nothing to average."""
        [piece] = self._pieces(self.examples[0], query)
        canvas = torch.cat([piece[:, 0], query], 1)
        canvas = block.finish(canvas, block.attn.attend(block.project(canvas)))
        example, query = canvas.split(query.shape[1], 1)
        self.examples, self.fresh = self.examples.empty(), True
        self.examples.append(example[:, None])
        return query

    def last(self, block: Block, query: Tensor) -> Tensor:
        """The last block: like `step`, but of the examples only what `above` asks for is computed.

        All of them are still seen by the query, so their keys and values are.
        """
        if not can_merge(query):
            return self.step(block, query)
        rows, columns = query.shape[1:3]
        grid, upper, lower = _halves_of(rows, columns)
        asked = split_heads(block.project(query))  # (3, B, n, L, d)
        own = block.attn.attend_rows(asked[0], asked[1:], grid, lower, lower)
        total, count = torch.zeros_like(query), 0
        seam = None
        for part in iter_chunks(self.examples):
            for piece in self._pieces(part, query):
                size = piece.shape[1]
                shown = split_heads(block.project_key_value(piece.flatten(0, 1)))
                beside = block.attn.attend_rows(_often(asked[0], size), shown, grid, lower, upper)
                below = join_heads(own.repeat(size).merge(beside).out, columns)
                total, count = total + below.unflatten(0, (-1, size)).sum(1), count + size
                if seam is None and self.rows_above:
                    seam = self._seam(block, piece[:, 0], shown[:, ::size], asked[1:])
        if seam is not None:
            self.examples, self.fresh = self.examples.empty(), True
            self.examples.append(seam[:, None])
        return block.finish(query, total / count)

    def _seam(self, block: Block, example: Tensor, shown: Tensor, asked: Tensor) -> Tensor:
        """The rows above the seam after the last block: example (B, h, w, C) → (B, rows, w, C)."""
        rows, columns = example.shape[1:3]
        first = rows - self.rows_above
        tokens = example[:, first:]
        q = split_heads(block.project(tokens))[0]
        known = torch.cat([shown, asked], 3)
        context = block.attn.attend_rows(
            q, known, (2 * rows, columns), slice(first, rows), slice(0, 2 * rows)
        )
        return block.finish(tokens, join_heads(context.out, columns))

    def merge(self, targets: TensorChunks) -> None:
        """Both streams of the examples become one; `targets` is the target stream."""
        assert self.fresh, "streams merge after a block"
        for index in range(len(targets)):
            image = self.examples[index]
            self.examples[index] = merge_streams(image, targets[index].to(image.dtype))

    def above(self) -> Tensor:
        """The last rows of the first example, as many as were asked for: (B, rows, w, C)."""
        first = self.examples[0][:, 0]
        return first[:, first.shape[1] - self.rows_above :]

    def _pieces(self, part: Tensor, query: Tensor) -> Sequence[Tensor]:
        """A part for every query, at most `chunk` examples in a piece: (B, s, h, w, C) each."""
        part = part.expand(query.shape[0], -1, -1, -1, -1).to(query.dtype)
        return part.split(self.chunk, 1) if self.chunk else [part]

    def _canvases(self, block: Block, query: Tensor) -> CanvasAttention:
        """What examples and query see on whole canvases, in one softmax for both halves.

        The answer takes (B, s, h, w, C) to two of the same shape: what these examples find, and
        what the query finds on the canvas of each.
        """
        rows = query.shape[1]
        asked = block.project(query)  # (B, h, w, 3, n, d)

        def look(piece: Tensor) -> tuple[Tensor, Tensor]:
            size = piece.shape[1]
            shown = block.project(piece.flatten(0, 1))  # (B·s, h, w, 3, n, d)
            canvas = torch.cat([shown, _often(asked, size)], 1)
            context = block.attn.attend(canvas).unflatten(0, (-1, size))  # (B, s, 2h, w, C)
            return context[:, :, :rows], context[:, :, rows:]

        return look

    def _halves(self, block: Block, query: Tensor) -> CanvasAttention:
        """The same, but what the query sees of itself is computed once for all canvases.

        That is a quarter of every canvas; the softmax over the halves merges exactly.
        """
        rows, columns = query.shape[1:3]
        grid, upper, lower = _halves_of(rows, columns)
        asked = split_heads(block.project(query))  # (3, B, n, L, d)
        own = block.attn.attend_rows(asked[0], asked[1:], grid, lower, lower)

        def look(piece: Tensor) -> tuple[Tensor, Tensor]:
            size = piece.shape[1]
            shown = split_heads(block.project(piece.flatten(0, 1)))  # (3, B·s, n, L, d)
            beside = block.attn.attend_rows(_often(asked[0], size), shown[1:], grid, lower, upper)
            below = own.repeat(size).merge(beside)
            both = torch.cat([shown[1:], asked[1:].repeat_interleave(size, 1)], 3)
            above = block.attn.attend_rows(shown[0], both, grid, upper, slice(0, 2 * rows))
            found = (join_heads(x.out, columns).unflatten(0, (-1, size)) for x in (above, below))
            return next(found), next(found)

        return look


def _halves_of(rows: int, columns: int) -> tuple[tuple[int, int], slice, slice]:
    """Rows and columns of a canvas, and the rows of its upper and lower half."""
    return (2 * rows, columns), slice(0, rows), slice(rows, 2 * rows)


def _often(x: Tensor, size: int) -> Tensor:
    """(B, …) → (B·size, …), each query `size` times in a row."""
    # `repeat_interleave` comes out wrong in ONNX where B and the number of examples are free.
    return x if size == 1 else x[:, None].expand(-1, size, *x.shape[1:]).flatten(0, 1)


@dataclass(frozen=True)
class TokenCache:
    """What is known of N examples before a query comes, in the image and in the target stream."""

    image: TensorChunks  # (P, some, h, w, C) before the first block
    target: TensorChunks  # the same; settled: after the block that the streams are merged after
    shown: Tensor | None = None  # (P, h, w, C): the query half of the settled target stream

    @classmethod
    def of(cls, tokens: Iterable[tuple[Tensor, Tensor, Any]], parts: TensorChunks) -> "TokenCache":
        """Keep tokens (P, some, h, w, C) of both streams, some examples at a time, in `parts`.

        The third of each is for independent examples: here all tokens move along with a query.
        """
        targets = parts.empty()
        for image, target, _ in tokens:
            parts.append(image)
            targets.append(target)
        return cls(parts, targets)

    def tensors(self) -> dict[str, Tensor]:
        """All that is kept, by name."""
        streams = {"image": self.image, "target": self.target}
        named = {
            f"{n}.{i}": x for n, parts in streams.items() for i, x in enumerate(iter_chunks(parts))
        }
        return named if self.shown is None else {**named, "shown": self.shown}

    @classmethod
    def from_tensors(cls, named: dict[str, Tensor]) -> "TokenCache":
        """What `tensors` answered, together again, in memory."""
        image, target = (MemoryChunks(indexed_tensors(named, name)) for name in ("image", "target"))
        return cls(image, target, named.get("shown"))

    def fits(self, count: int) -> bool:
        """Whether this is of so many examples."""
        return count == sum(shape[1] for shape in self.image.shapes())

    @property
    def nbytes(self) -> int:
        """Size of all that is kept."""
        shown = 0 if self.shown is None else self.shown.nbytes
        return self.image.nbytes + self.target.nbytes + shown

    def to(self, kind: torch.dtype | torch.device) -> "TokenCache":
        """Tokens stored as another dtype, or elsewhere; queries go on in their own dtype."""
        image, target = self.image.empty(), self.target.empty()
        for parts, stored in ((self.image, image), (self.target, target)):
            for part in iter_chunks(parts):
                stored.append(part.to(kind))
        shown = None if self.shown is None else self.shown.to(kind)
        return TokenCache(image, target, shown)

    def precompute_target_stream(
        self, first: Sequence[Block], shown: Tensor, chunk: int | None
    ) -> "TokenCache":
        """Take the target stream through the first blocks: it does not see the query's picture.

        `shown` (P, h, w, C): the query's target tokens, all of them hidden.
        """
        target = Joint(self.target, chunk)
        for block in first:
            shown = target.step(block, shown)
        return replace(self, target=target.examples, shown=shown)

    @classmethod
    def concat(cls, several: "Sequence[TokenCache]") -> "TokenCache":
        """Those of several prompts as one; none of them settled."""
        assert all(one.shown is None for one in several), "what is settled cannot be added to"
        image, target = several[0].image.empty(), several[0].target.empty()
        for one in several:
            for parts, more in ((image, one.image), (target, one.target)):
                for part in iter_chunks(more):
                    parts.append(part)
        return cls(image, target)

    def select(self, which: Tensor) -> "TokenCache":
        """Other examples for each query: `which` (B, k) of the N; P must be 1, unsettled."""
        assert self.shown is None, "the target stream of all examples is no sum over some of them"
        image, target = self.image.empty(), self.target.empty()
        for parts, chosen in ((self.image, image), (self.target, target)):
            every = gather_examples(parts, which.flatten()).unflatten(
                0, which.shape
            )  # (B, k, 1, h, w, C)
            for nth in every.unbind(1):  # the nth example of every query
                chosen.append(nth)
        return TokenCache(image, target)

    def begin(
        self, first: Sequence[Block], image: Tensor, shown: Tensor, chunk: int | None, above: int
    ) -> tuple[Tensor, Joint]:
        """A query through the first blocks, both streams, merged; and what takes it on.

        `image` and `shown` (B, h, w, C): the query's tokens in the two streams. What is settled
        does not look at `shown`.
        """
        here = (
            self if self.shown is not None else self.precompute_target_stream(first, shown, chunk)
        )
        assert here.shown is not None
        stream = Joint(self.image, chunk, above)
        for block in first:
            image = stream.step(block, image)
        stream.merge(here.target)
        return merge_streams(image, here.shown.to(image.dtype)), stream
