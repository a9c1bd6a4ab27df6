"""Palette and coloring: labels to target, painting to labels and confidence."""

import numpy as np

# Three levels a channel: 26 colors beside black, at least 127 apart in one channel.
LEVELS = (0, 128, 255)


def _grid() -> np.ndarray:
    """The 26 non-black colors of the three-level cube, each next one farthest from those before."""
    cube = np.array([(r, g, b) for r in LEVELS for g in LEVELS for b in LEVELS], float)
    chosen = [np.zeros(3), np.full(3, 255.0)]
    while len(chosen) < len(cube):
        gaps = np.stack([np.abs(cube - color).sum(1) for color in chosen])
        chosen.append(cube[gaps.min(0).argmax()])
    return np.stack(chosen[1:])


GRID = _grid()


def separated_colors(rng: np.random.Generator, classes: int) -> np.ndarray:
    """Random coloring for training: (classes + 1, 3) in 0–1, black first, all well apart.

    Half of the time the first class is pure white: the coloring of a single object.
    """
    picked = GRID[rng.choice(len(GRID), classes, replace=False)]
    picked = np.clip(picked + rng.uniform(-24, 24, picked.shape), 0, 255)
    if rng.random() < 0.5:
        clash = np.abs(picked[1:] - 255).max(1, initial=0) < 64
        picked[1:][clash] = picked[0]
        picked[0] = 255
    return np.concatenate([np.zeros((1, 3)), picked]) / 255
