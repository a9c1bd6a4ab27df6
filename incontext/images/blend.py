"""Blend: overlapping tiles as one map, without seams; and upsampling by rows."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from incontext.images.tiles import Box


class Blend:
    """Weighted mean of overlapping tiles; a tile fades towards its border, so no seam shows."""

    def __init__(self, channels: int, width: int, height: int) -> None:
        self.total = torch.zeros(channels, height, width)
        self.weight = torch.zeros(height, width)

    def add(self, box: Box, rows: slice, values: Tensor) -> None:
        """Add some rows of a tile, counted from its top: values (channels, rows, width)."""
        left, top, right, bottom = box
        weight = _ramp(bottom - top)[rows, None] * _ramp(right - left)[None]
        target_rows = slice(top + rows.start, top + rows.stop)
        self.total[:, target_rows, left:right] += values * weight
        self.weight[target_rows, left:right] += weight

    def result(self) -> Tensor:
        """Return the mean, (channels, height, width); to be called once, in place of the total."""
        return self.total.div_(self.weight)


def _ramp(length: int) -> Tensor:
    """Return a raised cosine over a tile, above 0 at its ends."""
    at = (torch.arange(length) + 0.5) / length
    return 0.5 - 0.5 * torch.cos(2 * np.pi * at) + 1e-3


def upsample_rows(values: Tensor, size: tuple[int, int], budget: int = 2**24) -> Iterator[Any]:
    """Upsample bilinearly (half-pixel centers, as `F.interpolate`) to (height, width) by bands.

    Yields (slice of rows, values (channels, rows, width)); a band has at most about `budget`
    elements, so that the probabilities of huge images are never in memory all at once.
    """
    height, width = size
    if tuple(values.shape[1:]) == size:
        yield slice(0, height), values
        return
    low_y, high_y, part_y = _neighbors(values.shape[1], height)
    step = max(1, budget // (values.shape[0] * width))
    for at in range(0, height, step):
        rows = slice(at, min(at + step, height))
        band = torch.lerp(values[:, low_y[rows]], values[:, high_y[rows]], part_y[rows, None])
        yield rows, F.interpolate(band[None], size=(band.shape[1], width), mode="bilinear")[0]


def _neighbors(source: int, target: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the two source positions around each target position, and the second one's weight."""
    position = ((torch.arange(target) + 0.5) * (source / target) - 0.5).clamp(0, source - 1)
    low = position.floor().long()
    return low, (low + 1).clamp(max=source - 1), (position - low).float()
