"""The official feature ensemble: how N examples and one query see each other, both ways open.

Letters: P prompts (1 or B), B queries, N examples, h w rows and columns of half a canvas, C
channels, n heads, L = h·w tokens of a half, d channels of a head; s examples of a piece.
"""

from collections.abc import Callable, Sequence

import torch
from einops import rearrange, reduce
from torch import Tensor

from incontext.model.attention import can_merge
from incontext.model.chunks import TensorChunks, iter_chunks
from incontext.model.layers import Block, join_heads, split_heads

# Takes a piece of examples (B, s, h, w, C) to the attention's output for the upper and for the
# lower half of its canvases: what these examples get, and what the query gets on each canvas.
CanvasAttention = Callable[[Tensor], tuple[Tensor, Tensor]]


def merge_streams(image: Tensor, target: Tensor) -> Tensor:
    """Average the image stream and the target stream."""
    return (image + target) / 2


class JointAttention:
    """Each example forms a canvas with the query, and the query half is averaged over them.

    The mean is taken after the attention of every block (official `Block.forward` with `merge`),
    for each stream on its own. So the query half is the same in all N canvases after every block,
    and is carried once. The mean stands before the output projection here: a linear map and a mean
    commute. (transformers' port averages over both streams in the block where they merge, so that
    with several examples it computes something else.)
    """

    def __init__(
        self, examples: TensorChunks, chunk: int | None = None, rows_above: int = 0
    ) -> None:
        """Start at the first block.

        Args:
            examples: chunks (P, s, h, w, C), left as they are.
            chunk: examples attended at once; None: a whole chunk of `examples`.
            rows_above: rows of the first example, next to the seam, to compute in the last block.
        """
        self.examples, self.chunk, self.rows_above = examples, chunk, rows_above
        self.writable = False  # whether `examples` are our own, made by an earlier block

    def step(self, block: Block, query: Tensor) -> Tensor:
        """Run one block: query (B, h, w, C) → the same shape; the examples are updated too."""
        if [shape[1] for shape in self.examples.shapes()] == [1]:
            return self._step_single(block, query)
        attend = (self._attend_halves if can_merge(query) else self._attend_canvases)(block, query)
        outputs = self.examples if self.writable else self.examples.empty()
        total, count = torch.zeros_like(query), 0
        for index, tokens in enumerate(iter_chunks(self.examples)):
            pieces = []
            for piece in self._pieces(tokens, query):
                upper, lower = attend(piece)
                pieces.append(block.finish(piece, upper))
                total, count = total + lower.sum(1), count + piece.shape[1]
            output = pieces[0] if len(pieces) == 1 else torch.cat(pieces, 1)
            if self.writable:
                outputs[index] = output
            else:
                outputs.append(output)
        self.examples, self.writable = outputs, True
        return block.finish(query, total / count)

    def _step_single(self, block: Block, query: Tensor) -> Tensor:
        """`step` with one example: one canvas, nothing to average."""
        [piece] = self._pieces(self.examples[0], query)
        canvas = torch.cat([piece[:, 0], query], 1)
        canvas = block.finish(canvas, block.attn.attend(block.project(canvas)))
        example, query = canvas.split(query.shape[1], 1)
        self.examples, self.writable = self.examples.empty(), True
        self.examples.append(example[:, None])
        return query

    def last_step(self, block: Block, query: Tensor) -> Tensor:
        """Run the last block: like `step`, but of the examples compute `rows_above` alone.

        The query still attends to all of their tokens, so their keys and values are computed.
        """
        if not can_merge(query):
            return self.step(block, query)
        rows, columns = query.shape[1:3]
        grid, upper, lower = _halves_of(rows, columns)
        qkv = split_heads(block.project(query))  # (3, B, n, L, d)
        to_itself = block.attn.attend_rows(qkv[0], qkv[1:], grid, lower, lower)
        total, count = torch.zeros_like(query), 0
        seam = None
        for tokens in iter_chunks(self.examples):
            for piece in self._pieces(tokens, query):
                size = piece.shape[1]
                examples = rearrange(piece, "b s h w c -> (b s) h w c")
                kv = split_heads(block.project_key_value(examples))
                q = _repeat_each(qkv[0], size)
                to_examples = block.attn.attend_rows(q, kv, grid, lower, upper)
                context = join_heads(to_itself.repeat(size).merge(to_examples).out, columns)
                total = total + reduce(context, "(b s) h w c -> b h w c", "sum", s=size)
                count += size
                if seam is None and self.rows_above:
                    seam = self._compute_seam(block, piece[:, 0], kv[:, ::size], qkv[1:])
        if seam is not None:
            self.examples, self.writable = self.examples.empty(), True
            self.examples.append(seam[:, None])
        return block.finish(query, total / count)

    def _compute_seam(
        self, block: Block, example: Tensor, example_kv: Tensor, query_kv: Tensor
    ) -> Tensor:
        """Run the last block for the rows above the seam: (B, h, w, C) → (B, rows, w, C)."""
        rows, columns = example.shape[1:3]
        first = rows - self.rows_above
        tokens = example[:, first:]
        q = split_heads(block.project(tokens))[0]
        kv = torch.cat([example_kv, query_kv], 3)
        context = block.attn.attend_rows(
            q, kv, (2 * rows, columns), slice(first, rows), slice(0, 2 * rows)
        )
        return block.finish(tokens, join_heads(context.out, columns))

    def merge(self, targets: TensorChunks) -> None:
        """Merge both streams of the examples into one; `targets` is the target stream."""
        assert self.writable, "streams merge after a block"
        for index in range(len(targets)):
            image = self.examples[index]
            self.examples[index] = merge_streams(image, targets[index].to(image.dtype))

    def seam_rows(self) -> Tensor:
        """Return the last `rows_above` rows of the first example: (B, rows, w, C)."""
        first = self.examples[0][:, 0]
        return first[:, first.shape[1] - self.rows_above :]

    def _pieces(self, tokens: Tensor, query: Tensor) -> Sequence[Tensor]:
        """Split a stored chunk for attention, at most `chunk` examples each: (B, s, h, w, C)."""
        tokens = tokens.expand(query.shape[0], -1, -1, -1, -1).to(query.dtype)
        return tokens.split(self.chunk, 1) if self.chunk else [tokens]

    def _attend_canvases(self, block: Block, query: Tensor) -> CanvasAttention:
        """Attend on whole canvases, in one softmax for both halves."""
        rows = query.shape[1]
        query_qkv = block.project(query)  # (B, h, w, 3, n, d)

        def attend(piece: Tensor) -> tuple[Tensor, Tensor]:
            # No einops: traced, both B and s are free, and neither may be passed as a number.
            size = piece.shape[1]
            qkv = block.project(piece.flatten(0, 1))  # (B·s, h, w, 3, n, d)
            canvas = torch.cat([qkv, _repeat_each(query_qkv, size)], 1)
            context = block.attn.attend(canvas).unflatten(0, (-1, size))  # (B, s, 2h, w, C)
            return context[:, :, :rows], context[:, :, rows:]

        return attend

    def _attend_halves(self, block: Block, query: Tensor) -> CanvasAttention:
        """Attend like `_attend_canvases`, but compute the query's attention to itself only once.

        That is a quarter of every canvas; the softmax over the halves merges exactly.
        """
        rows, columns = query.shape[1:3]
        grid, upper, lower = _halves_of(rows, columns)
        query_qkv = split_heads(block.project(query))  # (3, B, n, L, d)
        to_itself = block.attn.attend_rows(query_qkv[0], query_qkv[1:], grid, lower, lower)

        def attend(piece: Tensor) -> tuple[Tensor, Tensor]:
            size = piece.shape[1]
            examples = rearrange(piece, "b s h w c -> (b s) h w c")
            qkv = split_heads(block.project(examples))  # (3, B·s, n, L, d)
            q = _repeat_each(query_qkv[0], size)
            to_examples = block.attn.attend_rows(q, qkv[1:], grid, lower, upper)
            below = to_itself.repeat(size).merge(to_examples)
            kv = torch.cat([qkv[1:], query_qkv[1:].repeat_interleave(size, 1)], 3)
            above = block.attn.attend_rows(qkv[0], kv, grid, upper, slice(0, 2 * rows))
            contexts = (join_heads(half.out, columns) for half in (above, below))
            upper_context, lower_context = (
                rearrange(x, "(b s) h w c -> b s h w c", s=size) for x in contexts
            )
            return upper_context, lower_context

        return attend


def _halves_of(rows: int, columns: int) -> tuple[tuple[int, int], slice, slice]:
    """Return rows and columns of a canvas, and the rows of its upper and lower half."""
    return (2 * rows, columns), slice(0, rows), slice(rows, 2 * rows)


def _repeat_each(x: Tensor, times: int) -> Tensor:
    """(B, …) → (B·times, …), each query `times` in a row."""
    # Neither `repeat_interleave`, which comes out wrong in ONNX where B and the number of examples
    # are free, nor einops, which cannot hash the free number.
    return x if times == 1 else x[:, None].expand(-1, times, *x.shape[1:]).flatten(0, 1)
