"""Views: random crops of a picture, turned, flipped and recolored; many rendered at once.

Letters: C cells (pictures that become a view or a part of one), S size of the stored pictures,
H W of the views.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from incontext.data.pictures import IGNORE, Ids

Map = np.ndarray[Any, np.dtype[np.float32]]  # (2, 3), affine, both sides in -1 … 1

TONES = 6  # gain of three channels, shift, log of contrast, log of saturation


@dataclass(frozen=True)
class Window:
    """The part of a view that a picture fills, in -1 … 1: the whole view unless stitched."""

    left: float = -1.0
    top: float = -1.0
    right: float = 1.0
    bottom: float = 1.0

    def pixels(self, size: int) -> tuple[slice, slice]:
        """Rows and columns of a view of `size` × `size` pixels."""

        def at(x: float) -> int:
            return round((x + 1) / 2 * size)

        return slice(at(self.top), at(self.bottom)), slice(at(self.left), at(self.right))


WHOLE = Window()


def crop(rng: np.random.Generator, labels: Ids, min_area: float, window: Window = WHOLE) -> Map:
    """A random crop, usually one that keeps some labelled pixel, slightly turned or flipped.

    Returns:
        The affine map from positions in the view to positions in the picture; the crop fills
        `window` without changing its proportions by more than the random aspect.
    """
    extent = np.array([window.right - window.left, window.bottom - window.top]) / 2
    scale = np.sqrt(rng.uniform(min_area, 1.0)) if rng.random() < 0.8 else 1.0
    aspect = np.exp(rng.uniform(-0.2, 0.2))
    half = np.minimum(1.0, np.array([scale * aspect, scale / aspect])) * extent  # x, y
    center = rng.uniform(-1, 1, 2) * (1 - half)
    if rng.random() < 0.7:
        at = np.flatnonzero((labels > 0) & (labels != IGNORE))
        if len(at):
            row, column = divmod(int(at[rng.integers(len(at))]), labels.shape[1])
            point = (np.array([column, row]) + 0.5) / len(labels) * 2 - 1
            low, high = np.maximum(-1 + half, point - half), np.minimum(1 - half, point + half)
            center = low + rng.random(2) * np.maximum(high - low, 0)
    angle = rng.normal(0, 0.15) if rng.random() < 0.3 else 0.0
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    flip = np.array([-1.0 if rng.random() < 0.5 else 1.0, -1.0 if rng.random() < 0.1 else 1.0])
    linear = turn * (half * flip / extent)[None]
    middle = np.array([window.left + window.right, window.top + window.bottom]) / 2
    return np.concatenate([linear, (center - linear @ middle)[:, None]], 1).astype(np.float32)


def tones(rng: np.random.Generator, views: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Recolorings of the views of one episode, (views, TONES): much is shared, a little differs."""

    def draw(shared: float, own: float, count: int = 1) -> Any:
        return rng.normal(0, shared, (1, count)) + rng.normal(0, own, (views, count))

    parts = [1 + draw(0.12, 0.06, 3), draw(0.06, 0.05), draw(0.15, 0.12), draw(0.25, 0.0)]
    return np.concatenate(parts, 1).astype(np.float32)


def recolor(pictures: Tensor, tone: Tensor) -> Tensor:
    """Contrast around the mean, saturation, gain and shift: (C, 3, H, W) and (C, TONES)."""
    gain, shift, contrast, saturation = tone[..., None, None].split([3, 1, 1, 1], 1)
    mean = pictures.mean((1, 2, 3), keepdim=True)
    pictures = (pictures - mean) * contrast.exp() + mean
    gray = pictures.mean(1, keepdim=True)
    return ((gray + (pictures - gray) * saturation.exp()) * gain + shift).clamp(0, 1)


def paste(pictures: Tensor, labels: Tensor, behind: Tensor) -> Tensor:
    """Labelled objects over other pictures, edges softened by a pixel.

    `pictures` and `behind` are (C, 3, S, S) floats, `labels` (C, S, S).
    """
    inside = ((labels > 0) & (labels != IGNORE)).to(pictures.dtype)[:, None]
    alpha = F.avg_pool2d(inside, 3, 1, 1, count_include_pad=False)
    return behind + (pictures - behind) * alpha


def render(
    pictures: Tensor, labels: Tensor, maps: Tensor, tone: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """Cells (C, 3, S, S) in 0–1 and (C, S, S) uint8 to views of `size` × `size` pixels."""
    grid = F.affine_grid(maps, [len(maps), 1, size, size], align_corners=False)
    seen = F.grid_sample(pictures, grid, "bilinear", "reflection", align_corners=False)
    where = F.grid_sample(
        labels[:, None].float(), grid, "nearest", "reflection", align_corners=False
    )
    return recolor(seen, tone), where[:, 0].round().to(torch.uint8)
