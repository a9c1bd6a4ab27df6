"""Patch embedding, attention with decomposed relative position, transformer block.

Letters: M any leading dimensions, H W rows and columns of a token grid, C channels,
n heads, d channels of a head.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from incontext.model.attention import AttentionOutput, attention, biased_slices, partial_attention
from incontext.model.int8 import Int8Linear

# Elements of an MLP's wide layer at once, on CPU: 14 MB. Larger pieces of new memory come from the
# system page by page each time, which costs more than the arithmetic of a GELU.
MLP_CHUNK_ELEMENTS = 3_600_000


class PatchEmbedding(nn.Module):
    """Square patches to tokens: a convolution whose stride is its kernel."""

    def __init__(self, patch_size: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, patch_size, patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """(M, 3, height, width) → (M, H, W, C)."""
        return rearrange(self.proj(images), "m c h w -> m h w c")


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of a (M, C, H, W) tensor."""

    def forward(self, x: Tensor) -> Tensor:
        """(M, C, H, W) → the same shape."""
        x = super().forward(rearrange(x, "m c h w -> m h w c"))
        return rearrange(x, "m h w c -> m c h w")


def relative_table(table: Tensor, size: int) -> Tensor:
    """Look up the offset of every (query, key) pair along one axis: (2L - 1, d) → (size, size, d).

    A table of another length is interpolated linearly (ViTDet `get_rel_pos`, which the official
    SegGPT uses): row `q - k + size - 1` of the resized table belongs to query q and key k.
    """
    if len(table) != 2 * size - 1:
        # Interpolated in float32: bfloat16 would move whole offsets.
        resized = F.interpolate(table.T[None].float(), size=2 * size - 1, mode="linear")
        table = resized[0].T.to(table.dtype)
    position = torch.arange(size, device=table.device)
    return table[position[:, None] - position[None, :] + size - 1]


class ParameterCache:
    """A function of a parameter whose results inference keeps until the parameter changes.

    Changes are seen by the parameter's version, which edits through `.data` go past: edit under
    `torch.no_grad()` instead.
    """

    def __init__(self, make: Callable[..., Tensor]) -> None:
        self.make = make
        self.results: dict[tuple[object, ...], tuple[Tensor, Tensor]] = {}

    def __call__(self, parameter: Tensor, *sizes: int) -> Tensor:
        """Return `make(parameter, *sizes)`; never cached where gradients may flow through it."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or parameter.is_inference():
            return self.make(parameter, *sizes)
        key = (parameter.data_ptr(), parameter.dtype, parameter._version, *sizes)
        result = self.results.get(key)
        if result is None:
            if len(self.results) >= 4:  # a few sizes of pictures take turns; older weights go
                self.results = {}
            # Its storage is kept too, so that no other parameter can come to lie there.
            result = self.make(parameter, *sizes), parameter.detach()
            self.results[key] = result
        return result[0]

    def __getstate__(self) -> dict[str, object]:
        return {"make": self.make, "results": {}}


class Attention(nn.Module):
    """Multi-head attention over a token grid, optionally with decomposed relative position.

    The bias is computed from the *unscaled* query (official `add_decomposed_rel_pos`), and every
    block attends to the whole canvas: the official list of windowed blocks is a tuple of lists, by
    a misplaced bracket, so that no block is windowed, and the released weights were trained so.
    `grid` is the (rows, columns) of the canvas that the tables were made for; None leaves
    relative position out.
    """

    def __init__(self, dim: int, heads: int, grid: tuple[int, int] | None) -> None:
        super().__init__()
        self.heads = heads
        self.qkv: nn.Module = nn.Linear(dim, 3 * dim)
        self.proj: nn.Module = nn.Linear(dim, dim)
        self.relative = grid is not None
        if grid is not None:
            self.rel_pos_h = nn.Parameter(torch.zeros(2 * grid[0] - 1, dim // heads))
            self.rel_pos_w = nn.Parameter(torch.zeros(2 * grid[1] - 1, dim // heads))
        self.tables = (ParameterCache(relative_table), ParameterCache(relative_table))

    def project(self, x: Tensor) -> Tensor:
        """(M, H, W, C) → queries, keys and values in one tensor (M, H, W, 3, n, d)."""
        return rearrange(self.qkv(x), "m h w (s n d) -> m h w s n d", s=3, n=self.heads)

    def project_key_value(self, x: Tensor) -> Tensor:
        """(M, H, W, C) → keys and values alone (M, H, W, 2, n, d)."""
        dim = x.shape[-1]
        if not isinstance(self.qkv, nn.Linear):  # int8 weights cannot be sliced
            return self.project(x)[..., 1:, :, :]
        kv = F.linear(x, self.qkv.weight[dim:], self.qkv.bias[dim:])
        return rearrange(kv, "m h w (s n d) -> m h w s n d", s=2, n=self.heads)

    def attend(self, qkv: Tensor, budget: int | None = None) -> Tensor:
        """Let every token of a grid attend to all of them: (M, H, W, 3, n, d) → (M, H, W, C).

        The relative bias exists in slices of at most `budget` elements, so that the matrix of all
        pairs never does; the result does not depend on it.
        """
        rows, columns = qkv.shape[1:3]
        q, k, v = split_heads(qkv)
        if not self.relative:
            return join_heads(attention(q, k, v), columns)
        row_bias, column_bias = self._biases(q, (rows, columns), slice(0, rows), slice(0, rows))
        out = torch.empty_like(q.transpose(1, 2), memory_format=torch.contiguous_format)
        out = out.transpose(1, 2)  # (M, n, L, d), laid out as the output projection reads it
        for index, bias in biased_slices(q, row_bias, column_bias, budget):
            m, h, _ = index
            out[index] = attention(q[index], k[m, h], v[m, h], bias)
        return join_heads(out, columns)

    def attend_rows(
        self, q: Tensor, kv: Tensor, grid: tuple[int, int], query_rows: slice, key_rows: slice
    ) -> AttentionOutput:
        """Let the queries of some rows of a canvas attend to other rows; for inference.

        Args:
            q: (M, n, L, d), of `query_rows` of the canvas.
            kv: keys and values (2, M, n, K, d), of `key_rows` of the canvas.
            grid: rows and columns of the canvas.
        """
        k, v = kv
        if not self.relative:
            return partial_attention(q, k, v)
        row_bias, column_bias = self._biases(q, grid, query_rows, key_rows)
        out = torch.empty_like(q.transpose(1, 2), memory_format=torch.contiguous_format)
        lse = q.new_empty(q.shape[:3], dtype=torch.float32)
        result = AttentionOutput(out.transpose(1, 2), lse)
        for index, bias in biased_slices(q, row_bias, column_bias):
            m, h, _ = index
            part = partial_attention(q[index], k[m, h], v[m, h], bias)
            result.out[index], result.lse[index] = part.out, part.lse
        return result

    def _biases(
        self, q: Tensor, grid: tuple[int, int], query_rows: slice, key_rows: slice
    ) -> tuple[Tensor, Tensor]:
        """Return the bias by row and by column of the keys: (M, n, L, R) and (M, n, L, C)."""
        vertical = self.tables[0](self.rel_pos_h, grid[0])[query_rows, key_rows]  # (rows, R, d)
        horizontal = self.tables[1](self.rel_pos_w, grid[1])  # (C, C, d)
        # No einops: three calls a block of every example, where it measured 1 % of a query.
        cells = q.unflatten(2, (-1, grid[1]))  # (M, n, rows, C, d)
        row_bias = torch.einsum("mnrcd,rkd->mnrck", cells, vertical)
        column_bias = torch.einsum("mnrcd,ckd->mnrck", cells, horizontal)
        return row_bias.flatten(2, 3), column_bias.flatten(2, 3)


def split_heads(x: Tensor) -> Tensor:
    """(M, H, W, s, n, d) → (s, M, n, H·W, d): s = 3 queries, keys, values; 2 without queries."""
    return rearrange(x, "m h w s n d -> s m n (h w) d")


def join_heads(x: Tensor, columns: int) -> Tensor:
    """(M, n, H·W, d) → (M, H, W, n·d)."""
    return rearrange(x, "m n (h w) d -> m h w (n d)", w=columns)


class Mlp(nn.Module):
    """Two linear layers with the exact GELU between them."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.fc1: nn.Module = nn.Linear(dim, width)
        self.fc2: nn.Module = nn.Linear(width, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(…, C) → (…, C)."""
        elements, limit = x.numel() * self.width, MLP_CHUNK_ELEMENTS * x.shape[-1]
        if torch.is_grad_enabled() or not x.is_cpu or elements <= limit:
            return self.fc2(F.gelu(self.fc1(x)))
        # As few chunks as there can be, all of one size.
        chunks = x.flatten(0, -2).chunk(-(-elements // limit))
        return torch.cat([self.fc2(F.gelu(self.fc1(chunk))) for chunk in chunks]).view(x.shape)


class Block(nn.Module):
    """Pre-norm transformer block in pieces: what lies between them is the ensemble's business."""

    def __init__(
        self, dim: int, heads: int, mlp_ratio: float, grid: tuple[int, int] | None, eps: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, heads, grid)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def project(self, x: Tensor) -> Tensor:
        """(M, H, W, C) → normalized queries, keys, values (M, H, W, 3, n, d)."""
        return self.attn.project(self.norm1(x))

    def project_key_value(self, x: Tensor) -> Tensor:
        """(M, H, W, C) → normalized keys and values alone (M, H, W, 2, n, d)."""
        return self.attn.project_key_value(self.norm1(x))

    def quantize(self) -> None:
        """Give the linear layers int8 weights, for inference on CPU: see `Int8Linear`."""
        for module in (self.attn, self.mlp):
            for name, layer in list(module.named_children()):
                if isinstance(layer, nn.Linear):
                    setattr(module, name, Int8Linear(layer))

    def compile(self, *args: Any, **options: Any) -> None:
        """Compile everything but the attention; options of `torch.compile`."""
        self.project = torch.compile(self.project, *args, **options)  # type: ignore[method-assign]
        self.finish = torch.compile(self.finish, *args, **options)  # type: ignore[method-assign]

    def finish(self, x: Tensor, context: Tensor) -> Tensor:
        """Apply output projection of the attended `context`, residual, MLP, residual."""
        x = x + self.attn.proj(context)
        return x + self.mlp(self.norm2(x))
