"""Checks of cycle consistency: what the last one found, and whether a frame differs from its."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from incontext.inference.segmentation import Segmentation

GROWTH = 1.5  # times as large or small as in the frame that was checked
SHIFT = 0.5  # widths, the root of the area, that it moved
QUALITY_CHANGE = 0.1  # of the IoU to expect


@dataclass(frozen=True)
class MaskSummary:
    """What is compared of an object's mask; all zeros without one.

    Attributes:
        area: share of the frame.
        y, x: center, in sides of a square as large as the frame.
        quality: see `Segmentation.quality`.
    """

    area: float = 0.0
    y: float = 0.0
    x: float = 0.0
    quality: float = 0.0

    @classmethod
    def from_result(cls, result: Segmentation, index: int) -> "MaskSummary":
        """Summarize the mask of an id."""
        rows, columns = np.nonzero(result.labels == index)
        if not len(rows):
            return cls()
        pixels, quality = result.labels.size, result.quality.get(index, 1.0)
        y, x = (float(places.mean()) / pixels**0.5 for places in (rows, columns))
        return cls(len(rows) / pixels, y, x, quality)

    def differs(self, other: "MaskSummary") -> bool:
        """Return whether this may well be another object, or another outline of it: it came or
        went, grew or shrank by `GROWTH`, moved by `SHIFT`, or its quality changed by
        `QUALITY_CHANGE`."""
        small, large = sorted((self.area, other.area))
        return (
            large > GROWTH * small
            or float(np.hypot(self.y - other.y, self.x - other.x)) > SHIFT * large**0.5
            or abs(self.quality - other.quality) > QUALITY_CHANGE
        )


@dataclass(frozen=True)
class Check:
    """A check of cycle consistency.

    Attributes:
        frame: its number.
        masks: of the ids that were looked for, as they were predicted.
        shares: what was found, see `Memory.cycle_consistency`.
    """

    frame: int
    masks: Mapping[int, MaskSummary]
    shares: Mapping[int, float]

    @classmethod
    def from_result(cls, frame: int, result: Segmentation, shares: Mapping[int, float]) -> "Check":
        """Note what a check of a frame found, given its result."""
        masks = {i: MaskSummary.from_result(result, i) for i in result.presence}
        return cls(frame, masks, dict(shares))

    def covers(self, frame: int, result: Segmentation, interval: int) -> bool:
        """Return whether what was found still holds: for the same ids, fewer than `interval` frames
        away, if no mask differs."""
        return (
            abs(frame - self.frame) < interval
            and self.masks.keys() == result.presence.keys()
            and not any(
                mask.differs(MaskSummary.from_result(result, i)) for i, mask in self.masks.items()
            )
        )

    def to_array(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return a row for each id, for `from_array`; the share is NaN where there is none."""
        rows = [
            (self.frame, i, mask.area, mask.y, mask.x, mask.quality, self.shares.get(i, np.nan))
            for i, mask in self.masks.items()
        ]
        return np.array(rows, np.float64)

    @classmethod
    def from_array(cls, array: np.ndarray[Any, Any]) -> "Check":
        """Rebuild what `to_array` returned."""
        rows = array.tolist()
        masks = {int(row[1]): MaskSummary(*row[2:6]) for row in rows}
        shares = {int(row[1]): row[6] for row in rows if not np.isnan(row[6])}
        return cls(int(rows[0][0]), masks, shares)
