"""Procedural scenes: images with exact labels, drawn from random fields, for training.

A scene family is a background and a few classes, each a material (color, texture) and a form
(blobs, rings, thin curves, stripes, spots). Its views share materials and forms, not layouts.
"""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


def _uniform(rng: Generator, low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=rng)


def field(rng: Generator, count: int, grid: int, size: int) -> Tensor:
    """Draw smooth random fields of zero mean and unit variance with `grid` waves across.

    Returns:
        (count, size, size).
    """
    noise = torch.randn(count, 1, grid + 3, grid + 3, generator=rng)
    smooth = F.interpolate(noise, size=(size, size), mode="bicubic", align_corners=True)[:, 0]
    center = smooth.mean((1, 2), keepdim=True)
    return (smooth - center) / smooth.std((1, 2), keepdim=True).clamp(min=1e-3)


def _form(rng: Generator, views: int, size: int) -> Tensor:
    """Draw where one class is in each view: (views, size, size) bool."""
    shape = int(torch.randint(0, 6, (1,), generator=rng))
    base = field(rng, views, int(torch.randint(1, 5, (1,), generator=rng)), size)
    if shape <= 1:  # blobs
        return base > float(_uniform(rng, 0.3, 1.4, 1))
    if shape == 2:  # rings
        return (base - float(_uniform(rng, 0.4, 1.0, 1))).abs() < float(_uniform(rng, 0.1, 0.3, 1))
    if shape == 3:  # thin curves: the zero level of a field, about constant in width
        slope = torch.stack(torch.gradient(base, dim=(1, 2))).norm(dim=0).clamp(min=1e-3)
        return base.abs() / slope < float(_uniform(rng, 0.6, 2.2, 1)) * size / 64
    if shape == 4:  # spots
        fine = field(rng, views, int(torch.randint(8, 16, (1,), generator=rng)), size)
        return (fine > float(_uniform(rng, 0.8, 1.6, 1))) & (base > -0.5)
    axis = torch.linspace(-1, 1, size)  # one object: a squeezed, rotated, dented disc
    angle = _uniform(rng, 0, 3.14, views, 1, 1)
    x = axis[None, None] - _uniform(rng, -0.5, 0.5, views, 1, 1)
    y = axis[None, :, None] - _uniform(rng, -0.5, 0.5, views, 1, 1)
    u, v = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    radius = _uniform(rng, 0.15, 0.6, views, 1, 1)
    stretch = float(_uniform(rng, 1.0, 2.5, 1))
    return (u**2 + (stretch * v) ** 2).sqrt() < radius * (1 + 0.25 * base)


def _material(rng: Generator, views: int, size: int, base: Tensor) -> Tensor:
    """Draw a texture in each view around one color: (views, 3, size, size) in 0–1."""
    grid = int(torch.randint(2, 24, (1,), generator=rng))
    noise = field(rng, views, grid, size)[:, None]
    tint = _uniform(rng, -1, 1, 1, 3, 1, 1)
    texture = noise * tint * float(_uniform(rng, 0.0, 0.16, 1))
    if float(torch.rand(1, generator=rng)) < 0.3:
        axis = torch.linspace(0, 1, size)
        wave = _uniform(rng, -60, 60, 2)
        phase = _uniform(rng, 0, 6.28, views, 1, 1)
        stripes = torch.sin(wave[0] * axis[None, None] + wave[1] * axis[None, :, None] + phase)
        texture = texture + stripes[:, None] * float(_uniform(rng, 0.03, 0.15, 1))
    drift = _uniform(rng, -0.06, 0.06, views, 3, 1, 1)
    return base.view(1, 3, 1, 1) + texture + drift


def draw_scenes(
    rng: Generator, views: int, size: int, classes: int, absent: bool = False
) -> tuple[Tensor, Tensor]:
    """Draw the views of one family.

    Args:
        classes: later ones lie over earlier ones.
        absent: leave all classes out of the last view.

    Returns:
        Images (views, 3, size, size) in 0–1, labels (views, size, size) uint8: 0 background,
        1 … `classes`.
    """
    gray = float(torch.rand(1, generator=rng)) < 0.3
    colors = _uniform(rng, 0.1, 0.9, classes + 2, 3)
    if gray:
        colors = colors.mean(1, keepdim=True).expand(-1, 3)
    contrast = float(_uniform(rng, 0.25, 1.0, 1))  # low: classes close to the background
    colors = colors[:1] + (colors - colors[:1]) * contrast
    images = _material(rng, views, size, colors[0])
    # A distractor that belongs to the background keeps "whatever stands out" from being enough.
    clutter = _form(rng, views, size)[:, None]
    images = torch.where(clutter, _material(rng, views, size, colors[-1]), images)
    labels = torch.zeros(views, size, size, dtype=torch.uint8)
    for index in range(1, classes + 1):
        mask = _form(rng, views, size)
        mask[-1] &= not absent
        material = _material(rng, views, size, colors[index])
        images = torch.where(mask[:, None], material, images)
        labels[mask] = index
    light = 1 + 0.15 * field(rng, views, 1, size)[:, None] * float(torch.rand(1, generator=rng))
    noise = torch.randn(images.shape, generator=rng) * float(_uniform(rng, 0.0, 0.05, 1))
    images = images * light + noise
    if gray:
        images = images.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    return images.clamp(0, 1), labels
