"""Metrics on label maps, numpy only."""

from collections import defaultdict
from typing import Any

import numpy as np

Mask = np.ndarray[Any, np.dtype[np.bool_]]


class FewShotIoU:
    """The usual few-shot protocol (HSNet `AverageMeter`): sums by class, then ratios.

    Intersections and unions of foreground and background are summed over the episodes of a class;
    mIoU is the mean foreground IoU over classes seen, FB-IoU the mean of foreground and background
    over all episodes. All in percent.
    """

    def __init__(self) -> None:
        # class → [[background, foreground] intersection, [background, foreground] union]
        self.sums: dict[int, np.ndarray[Any, Any]] = defaultdict(lambda: np.zeros((2, 2)))

    def add(self, index: int, prediction: Mask, truth: Mask, ignored: Mask | None = None) -> None:
        """Count one episode of class `index`; maps (H, W) bool, ignored pixels are left out."""
        valid = np.ones_like(truth) if ignored is None else ~ignored
        for row, (p, t) in enumerate(((~prediction, ~truth), (prediction, truth))):
            self.sums[index][0, row] += np.count_nonzero(p & t & valid)
            self.sums[index][1, row] += np.count_nonzero((p | t) & valid)

    def per_class(self) -> dict[int, float]:
        """IoU of each class seen."""
        return {
            index: 100 * float(sums[0, 1]) / max(1.0, float(sums[1, 1]))
            for index, sums in sorted(self.sums.items())
        }

    def miou(self) -> float:
        """Mean over classes seen; NaN before any."""
        values = list(self.per_class().values())
        return float(np.mean(values)) if values else float("nan")

    def fb_iou(self) -> float:
        """Mean of foreground and background IoU over all episodes."""
        total = sum(self.sums.values(), np.zeros((2, 2)))
        return float(100 * np.mean(total[0] / np.maximum(total[1], 1)))
