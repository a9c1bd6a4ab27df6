"""Views: random crops of an image, rotated, flipped and color-jittered; many rendered at once.

Letters: C cells (images that become a view or a part of one), S size of the stored images, H W of
the views.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from incontext.data.pictures import IGNORE_INDEX, Ids

Affine = np.ndarray[Any, np.dtype[np.float32]]  # (2, 3), both sides in -1 … 1
Jitter = np.ndarray[Any, np.dtype[np.float32]]  # (…, JITTER_VALUES)

JITTER_VALUES = 6  # gain of three channels, shift, log of contrast, log of saturation


@dataclass(frozen=True)
class Window:
    """The part of a view that an image fills, in -1 … 1: the full view unless stitched."""

    left: float = -1.0
    top: float = -1.0
    right: float = 1.0
    bottom: float = 1.0

    def pixels(self, size: int) -> tuple[slice, slice]:
        """Return its rows and columns in a view of `size` × `size` pixels."""

        def pixel(x: float) -> int:
            return round((x + 1) / 2 * size)

        rows = slice(pixel(self.top), pixel(self.bottom))
        return rows, slice(pixel(self.left), pixel(self.right))


FULL_VIEW = Window()


def split_view(rng: np.random.Generator) -> tuple[Window, Window]:
    """Cut a view in two, side by side or one above the other, in random order."""
    border = float(rng.choice([-0.25, 0.0, 0.25]))
    if rng.random() < 0.5:
        parts = Window(right=border), Window(left=border)
    else:
        parts = Window(bottom=border), Window(top=border)
    return parts if rng.random() < 0.5 else parts[::-1]


def random_crop(
    rng: np.random.Generator, labels: Ids, min_area: float, window: Window = FULL_VIEW
) -> Affine:
    """Draw a crop, usually one with a labelled pixel, slightly rotated or flipped.

    Args:
        labels: (S, S) of the image.
        min_area: smallest crop, as a share of the image.

    Returns:
        The affine map from positions in the view to positions in the image; the crop fills
        `window` without changing its proportions by more than the random aspect.
    """
    extent = np.array([window.right - window.left, window.bottom - window.top]) / 2
    scale = np.sqrt(rng.uniform(min_area, 1.0)) if rng.random() < 0.8 else 1.0
    aspect = np.exp(rng.uniform(-0.2, 0.2))
    half = np.minimum(1.0, np.array([scale * aspect, scale / aspect])) * extent  # x, y
    center = rng.uniform(-1, 1, 2) * (1 - half)
    if rng.random() < 0.7:
        labelled_pixels = np.flatnonzero((labels > 0) & (labels != IGNORE_INDEX))
        if len(labelled_pixels):
            pixel = int(labelled_pixels[rng.integers(len(labelled_pixels))])
            row, column = divmod(pixel, labels.shape[1])
            point = (np.array([column, row]) + 0.5) / len(labels) * 2 - 1
            low, high = np.maximum(-1 + half, point - half), np.minimum(1 - half, point + half)
            center = low + rng.random(2) * np.maximum(high - low, 0)
    angle = rng.normal(0, 0.15) if rng.random() < 0.3 else 0.0
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    flip = np.array([-1.0 if rng.random() < 0.5 else 1.0, -1.0 if rng.random() < 0.1 else 1.0])
    linear = rotation * (half * flip / extent)[None]
    middle = np.array([window.left + window.right, window.top + window.bottom]) / 2
    return np.concatenate([linear, (center - linear @ middle)[:, None]], 1).astype(np.float32)


def color_jitter(rng: np.random.Generator, views: int) -> Jitter:
    """Draw the color jitter of an episode's views, (views, JITTER_VALUES).

    Much of it is common to the views, a little differs.
    """

    def draw(common: float, single: float, count: int = 1) -> Any:
        return rng.normal(0, common, (1, count)) + rng.normal(0, single, (views, count))

    parts = [1 + draw(0.12, 0.06, 3), draw(0.06, 0.05), draw(0.15, 0.12), draw(0.25, 0.0)]
    return np.concatenate(parts, 1).astype(np.float32)


def apply_color_jitter(images: Tensor, jitter: Tensor) -> Tensor:
    """Change contrast around the mean, saturation, gain and shift of images in 0–1.

    Args:
        images: (C, 3, H, W).
        jitter: (C, JITTER_VALUES).
    """
    gain, shift, contrast, saturation = jitter[..., None, None].split([3, 1, 1, 1], 1)
    mean = images.mean((1, 2, 3), keepdim=True)
    images = (images - mean) * contrast.exp() + mean
    gray = images.mean(1, keepdim=True)
    return ((gray + (images - gray) * saturation.exp()) * gain + shift).clamp(0, 1)


def paste_objects(images: Tensor, labels: Tensor, backgrounds: Tensor) -> Tensor:
    """Paste labelled objects over other images, edges softened by a pixel.

    Args:
        images, backgrounds: (C, 3, S, S) floats.
        labels: (C, S, S).
    """
    inside = ((labels > 0) & (labels != IGNORE_INDEX)).to(images.dtype)[:, None]
    alpha = F.avg_pool2d(inside, 3, 1, 1, count_include_pad=False)
    return backgrounds + (images - backgrounds) * alpha


def render(
    images: Tensor, labels: Tensor, affines: Tensor, jitter: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """Render cells as views of `size` × `size` pixels.

    Args:
        images, labels: (C, 3, S, S) in 0–1 and (C, S, S) uint8.
        affines, jitter: (C, 2, 3), see `random_crop`, and (C, JITTER_VALUES).

    Returns:
        Images (C, 3, size, size) in 0–1 and labels (C, size, size) uint8.
    """
    grid = F.affine_grid(affines, [len(affines), 1, size, size], align_corners=False)
    views = F.grid_sample(images, grid, "bilinear", "reflection", align_corners=False)
    ids = F.grid_sample(labels[:, None].float(), grid, "nearest", "reflection", align_corners=False)
    return apply_color_jitter(views, jitter), ids[:, 0].round().to(torch.uint8)
