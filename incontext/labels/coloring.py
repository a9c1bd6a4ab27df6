"""Palette and coloring: labels to target, painting to probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from incontext.errors import InputError, former_attributes
from incontext.labels.color_mask import Rgb
from incontext.labels.encodings import IdMap

if TYPE_CHECKING:
    from torch import Tensor

# Three levels a channel: 25 colors beside black and gray, 127 or more apart in one channel.
LEVELS = (0, 128, 255)

# The probability of a color falls by a factor of e for each such share of the smallest distance
# between two colors of the coloring: that of a pure color (0.98 or more) hardly depends on their
# number.
TEMPERATURE = 0.1
SMALLEST_GAP = 8  # mean absolute difference of two colors, 0–255


@dataclass(frozen=True)
class Palette:
    """Ordered, well-separated RGB colors (0–255); a prefix is a palette too."""

    colors: tuple[Rgb, ...]

    @classmethod
    def separated(cls) -> "Palette":
        """Return white, then always the color of the three-level cube farthest from the others.

        Mid-gray is left out: every blurred border between white and black passes through it.
        """
        levels = [(r, g, b) for r in LEVELS for g in LEVELS for b in LEVELS]
        cube = np.array([rgb for rgb in levels if rgb != (128, 128, 128)], float)
        colors = [np.zeros(3), np.full(3, 255.0)]  # black is the background
        while len(colors) < len(cube):
            gaps = np.stack([np.linalg.norm(cube - color, axis=1) for color in colors])
            colors.append(cube[gaps.min(0).argmax()])
        return cls(tuple((int(c[0]), int(c[1]), int(c[2])) for c in colors[1:]))

    def __len__(self) -> int:
        return len(self.colors)

    def color(self, index: int) -> Rgb:
        """Return color number `index`; it starts over at the end, for images for people only."""
        return self.colors[index % len(self.colors)]

    __getattr__ = former_attributes(of="color")


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
    def from_palette(cls, ids: Sequence[int], palette: Palette = PALETTE) -> "Coloring":
        """Assign the palette's first colors to ids in their order.

        Raises:
            InputError: more ids than colors.
        """
        if len(ids) > len(palette):
            raise InputError(f"{len(ids)} ids in one pass; the palette has {len(palette)} colors")
        return cls(tuple(ids), palette.colors[: len(ids)])

    def paint(self, ids: IdMap) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Paint ids (H, W) as a target (H, W, 3); ids of other colorings and unknown are black."""
        target = np.zeros((*ids.shape, 3), np.uint8)
        for index, color in zip(self.ids, self.colors, strict=True):
            target[ids == index] = color
        return target

    def probabilities(self, painting: "Tensor") -> "Tensor":
        """Return the probability of each color, (…, 3, H, W) in 0–255 → (…, K + 1, H, W).

        Background first, then `ids` in order: a softmax over the mean absolute distance to each
        color, in units of the coloring's smallest gap.
        """
        import torch  # here, since onnxruntime paints without it

        table = torch.tensor([(0, 0, 0), *self.colors], dtype=torch.float32)
        distance = (painting.unsqueeze(-4) - table[..., None, None]).abs().mean(-3)
        return (distance / (-TEMPERATURE * self.gap)).softmax(-3)


def separated_colors(rng: np.random.Generator, classes: int) -> np.ndarray[Any, Any]:
    """Draw a coloring for training: (classes + 1, 3) in 0–1, black first, all well apart.

    Half of the time the first class is pure white: the coloring of a single object.
    """
    grid = np.array(PALETTE.colors, float)
    colors = grid[rng.choice(len(grid), classes, replace=False)]
    colors = np.clip(colors + rng.uniform(-24, 24, colors.shape), 0, 255)
    if rng.random() < 0.5:
        clash = np.abs(colors[1:] - 255).max(1, initial=0) < 64
        colors[1:][clash] = colors[0]
        colors[0] = 255
    return np.concatenate([np.zeros((1, 3)), colors]) / 255
