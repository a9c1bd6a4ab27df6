"""Patch embedding, attention with decomposed relative position, transformer block.

Letters: M any leading dimensions, H W rows and columns of a token grid, C channels,
n heads, d channels of a head.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Attention bias built at once, in elements: 2**25 float32 values are 128 MiB.
BIAS_BUDGET = 2**25


def attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """softmax(scale · q kᵀ + bias) v over the last two dimensions; scale defaults to 1/√d.

    On CPU, PyTorch's fused backward pass in bfloat16 is slower than writing the matrix out (see
    `benchmarks/README.md`), so what needs gradients there does that.
    """
    if not (q.requires_grad and q.device.type == "cpu" and q.dtype == torch.bfloat16):
        return F.scaled_dot_product_attention(q, k, v, bias, scale=scale)
    scores = (q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.transpose(-1, -2)
    return (scores if bias is None else scores + bias.to(scores.dtype)).softmax(-1).to(v.dtype) @ v


class PatchEmbedding(nn.Module):
    """Square patches to tokens: a convolution whose stride is its kernel."""

    def __init__(self, patch_size: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, patch_size, patch_size)

    def forward(self, picture: Tensor) -> Tensor:
        """(M, 3, height, width) → (M, H, W, C)."""
        return self.proj(picture).permute(0, 2, 3, 1)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of a (M, C, H, W) tensor."""

    def forward(self, x: Tensor) -> Tensor:
        """(M, C, H, W) → the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def relative_table(table: Tensor, size: int) -> Tensor:
    """Offsets of every (query, key) pair along one axis: (2L - 1, d) → (size, size, d).

    A table of another length is interpolated linearly (ViTDet `get_rel_pos`, which the official
    SegGPT uses): row `q - k + size - 1` of the resized table belongs to query q and key k.
    """
    if len(table) != 2 * size - 1:
        resized = F.interpolate(table.T[None].float(), size=2 * size - 1, mode="linear")
        table = resized[0].T.to(table.dtype)
    at = torch.arange(size, device=table.device)
    return table[at[:, None] - at[None, :] + size - 1]


class Attention(nn.Module):
    """Multi-head attention over a token grid, optionally with decomposed relative position.

    The bias is computed from the *unscaled* query (official `add_decomposed_rel_pos`).
    `grid` is the (rows, columns) of the canvas that the tables were made for; None leaves
    relative position out.
    """

    def __init__(self, dim: int, heads: int, grid: tuple[int, int] | None) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.relative = grid is not None
        if grid is not None:
            self.rel_pos_h = nn.Parameter(torch.zeros(2 * grid[0] - 1, dim // heads))
            self.rel_pos_w = nn.Parameter(torch.zeros(2 * grid[1] - 1, dim // heads))

    def project(self, x: Tensor) -> Tensor:
        """(M, H, W, C) → queries, keys and values in one tensor (M, H, W, 3, n, d)."""
        return self.qkv(x).unflatten(-1, (3, self.heads, -1))

    def attend(self, qkv: Tensor, budget: int = BIAS_BUDGET) -> Tensor:
        """Every token of a grid attends to all of them: (M, H, W, 3, n, d) → (M, H, W, C).

        Rows of queries go in slices whose bias has at most `budget` elements (one row at the
        least), so that the matrix of all pairs never exists; the result does not depend on it.
        """
        rows, columns = qkv.shape[1:3]
        q, k, v = qkv.flatten(1, 2).permute(2, 0, 3, 1, 4)  # each (M, n, H·W, d)
        if not self.relative:
            out = attention(q, k, v)
            return out.transpose(1, 2).reshape(*qkv.shape[:3], -1)
        grid = q.unflatten(2, (rows, columns))  # (M, n, H, W, d)
        vertical = relative_table(self.rel_pos_h, rows)  # (H, H, d)
        horizontal = relative_table(self.rel_pos_w, columns)  # (W, W, d)
        step = max(1, budget // (q.shape[0] * q.shape[1] * columns * rows * columns))
        slices = []
        for at in range(0, rows, step):
            part = grid[:, :, at : at + step]  # (M, n, r, W, d)
            tall = torch.einsum("mnrcd,rkd->mnrck", part, vertical[at : at + step])
            wide = torch.einsum("mnrcd,ckd->mnrck", part, horizontal)
            bias = (tall[..., :, None] + wide[..., None, :]).flatten(4).flatten(2, 3)
            slices.append(attention(part.flatten(2, 3), k, v, bias))
        return torch.cat(slices, 2).transpose(1, 2).reshape(*qkv.shape[:3], -1)


class Mlp(nn.Module):
    """Two linear layers with the exact GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(…, C) → (…, C)."""
        return self.fc2(F.gelu(self.fc1(x)))


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

    def finish(self, x: Tensor, context: Tensor) -> Tensor:
        """Output projection of the attended `context`, residual, MLP, residual."""
        x = x + self.attn.proj(context)
        return x + self.mlp(self.norm2(x))
