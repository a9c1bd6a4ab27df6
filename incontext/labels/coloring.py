"""Palette and coloring: labels to target, painting to labels and confidence."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from incontext.errors import InputError
from incontext.labels.color_mask import Rgb
from incontext.labels.encodings import IdMap

# Three levels a channel: 25 colors beside black and gray, 127 or more apart in one channel.
LEVELS = (0, 128, 255)

# Belief in a color falls by e for this share of the smallest distance between two colors of the
# coloring: a pure color is believed in alike, however many colors there are (0.98 and more).
TEMPERATURE = 0.1
SMALLEST_GAP = 8  # mean absolute difference of two colors, 0–255


@dataclass(frozen=True)
class Palette:
    """Ordered, well-separated RGB colors (0–255); a prefix is a palette too."""

    colors: tuple[Rgb, ...]

    @classmethod
    def separated(cls) -> "Palette":
        """White first, then each next color of the three-level cube farthest from those before.

        Mid-gray is left out: every blurred border between white and black passes through it.
        """
        levels = [(r, g, b) for r in LEVELS for g in LEVELS for b in LEVELS]
        cube = np.array([rgb for rgb in levels if rgb != (128, 128, 128)], float)
        chosen = [np.zeros(3), np.full(3, 255.0)]  # black is the background
        while len(chosen) < len(cube):
            gaps = np.stack([np.linalg.norm(cube - color, axis=1) for color in chosen])
            chosen.append(cube[gaps.min(0).argmax()])
        return cls(tuple((int(c[0]), int(c[1]), int(c[2])) for c in chosen[1:]))

    def __len__(self) -> int:
        return len(self.colors)

    def of(self, index: int) -> Rgb:
        """Color number `index`; starts over at the end, for pictures only people look at."""
        return self.colors[index % len(self.colors)]


PALETTE = Palette.separated()


@dataclass(frozen=True)
class Coloring:
    """One assignment of colors to labels, shared by examples and query; background is black.

    Raises:
        InputError: no ids, an id twice, or two colors (black is one) that are too close.
    """

    ids: tuple[int, ...]
    colors: tuple[Rgb, ...]

    def __post_init__(self) -> None:
        if not self.ids or len(self.ids) != len(self.colors) or len(set(self.ids)) < len(self.ids):
            raise InputError("a coloring needs one color for each of one or more different ids")
        if self.gap < SMALLEST_GAP:
            raise InputError(
                f"two colors of a coloring are {self.gap:.1f} apart (black, the background's, is "
                f"one of them); accepted: {SMALLEST_GAP} or more on average over the channels"
            )

    @cached_property
    def gap(self) -> float:
        """Smallest mean absolute difference between two of the colors, black included."""
        table = np.array([(0, 0, 0), *self.colors], float)
        gaps = np.abs(table[:, None] - table[None]).mean(-1)
        return float(gaps[np.triu_indices(len(table), 1)].min())

    @classmethod
    def of(cls, ids: Sequence[int], palette: Palette = PALETTE) -> "Coloring":
        """The palette's first colors for ids in their order.

        Raises:
            InputError: more ids than colors.
        """
        if len(ids) > len(palette):
            raise InputError(f"{len(ids)} ids in one pass; the palette has {len(palette)} colors")
        return cls(tuple(ids), palette.colors[: len(ids)])

    def paint(self, ids: IdMap) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Id map (H, W) → target (H, W, 3); ids of other colorings and ignore become black."""
        target = np.zeros((*ids.shape, 3), np.uint8)
        for index, color in zip(self.ids, self.colors, strict=True):
            target[ids == index] = color
        return target

    def read(self, painting: Tensor) -> Tensor:
        """Painting (…, 3, H, W) in 0–255 → belief in each color (…, K + 1, H, W), summing to 1.

        Background first, then `ids` in order: a softmax over the mean absolute distance to each
        color, in units of the coloring's smallest gap.
        """
        table = torch.tensor([(0, 0, 0), *self.colors], dtype=torch.float32)
        distance = (painting.unsqueeze(-4) - table[..., None, None]).abs().mean(-3)
        return (distance / (-TEMPERATURE * self.gap)).softmax(-3)


def separated_colors(rng: np.random.Generator, classes: int) -> np.ndarray[Any, Any]:
    """Random coloring for training: (classes + 1, 3) in 0–1, black first, all well apart.

    Half of the time the first class is pure white: the coloring of a single object.
    """
    grid = np.array(PALETTE.colors, float)
    picked = grid[rng.choice(len(grid), classes, replace=False)]
    picked = np.clip(picked + rng.uniform(-24, 24, picked.shape), 0, 255)
    if rng.random() < 0.5:
        clash = np.abs(picked[1:] - 255).max(1, initial=0) < 64
        picked[1:][clash] = picked[0]
        picked[0] = 255
    return np.concatenate([np.zeros((1, 3)), picked]) / 255
