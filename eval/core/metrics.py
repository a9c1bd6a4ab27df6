"""Metrics on label maps."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from incontext.evaluation.confusion import Interval, Numbers, interval_around, resamples

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Maps = np.ndarray[Any, np.dtype[Any]]


class FewShotIoU:
    """The usual few-shot protocol (HSNet `AverageMeter`): sums by class, then ratios.

    Intersections and unions of foreground and background are summed over the episodes of a class;
    mIoU is the mean foreground IoU over classes seen, FB-IoU the mean of foreground and background
    over all episodes. All in percent.

    `rows`: an episode each, [class, intersection and union of the background, of the foreground].
    """

    def __init__(self, rows: Iterable[Sequence[int]] = ()) -> None:
        self.rows: list[list[int]] = [list(row) for row in rows]

    def add(self, index: int, prediction: Mask, truth: Mask, ignored: Mask | None = None) -> None:
        """Count one episode of class `index`; maps (H, W) bool, ignored pixels are left out."""
        valid = np.ones_like(truth) if ignored is None else ~ignored
        row = [index]
        for p, t in ((~prediction, ~truth), (prediction, truth)):
            row += [int((p & t & valid).sum()), int(((p | t) & valid).sum())]
        self.rows.append(row)

    def per_class(self) -> dict[int, float]:
        """IoU of each class seen."""
        return {
            index: 100 * both / max(1.0, either)
            for index, (both, either) in sorted(self._sums(slice(3, 5)).items())
        }

    def _sums(self, columns: slice) -> dict[int, Any]:
        rows = np.array(self.rows, float).reshape(-1, 5)
        return {int(i): rows[rows[:, 0] == i, columns].sum(0) for i in np.unique(rows[:, 0])}

    def miou(self) -> float:
        """Mean over classes seen; NaN before any."""
        values = list(self.per_class().values())
        return float(np.mean(values)) if values else float("nan")

    def fb_iou(self) -> float:
        """Mean of foreground and background IoU over all episodes."""
        total = np.array(self.rows, float).reshape(-1, 5)[:, 1:].sum(0).reshape(2, 2)
        return float(100 * np.mean(total[:, 0] / np.maximum(total[:, 1], 1)))

    def dice(self) -> float:
        """Mean over classes of 2·intersection / (union + intersection), from the same sums."""
        values = [200 * i / max(1.0, u + i) for i, u in self._sums(slice(3, 5)).values()]
        return float(np.mean(values)) if values else float("nan")

    def drawn(self, seed: int = 0) -> Numbers:
        """mIoU of every bootstrap resample of the episodes, class by class: (R,)."""
        rows = np.array(self.rows, float).reshape(-1, 5)
        by_class = []
        for index in np.unique(rows[:, 0]):
            counted = rows[rows[:, 0] == index, 3:]
            both, either = (resamples(len(counted), seed + int(index)) @ counted).T
            by_class.append(100 * both / np.maximum(either, 1))
        return np.asarray(np.mean(by_class, 0))

    def interval(self) -> Interval:
        """mIoU with its 90 % interval, which holds for these classes."""
        return interval_around(self.miou(), self.drawn(), len(self.rows))


class JandF:
    """Region similarity J and boundary accuracy F of objects through a video (DAVIS 2017,
    semi-supervised; official `davis2017-evaluation`).

    Of each object the first and the last frame are left out; J is IoU, F the harmonic mean of
    precision and recall of the outlines. An object that is neither there nor predicted counts 1.
    All in 0–1.
    """

    def __init__(self) -> None:
        self.objects: list[dict[str, list[float]]] = []

    def add(self, truth: Maps, prediction: Maps) -> None:
        """Score one clip, (T, H, W) ids each; objects are the ids of the truth but 255."""
        inner_truth, inner = truth[1:-1], prediction[1:-1]
        for index in [int(i) for i in np.unique(truth) if i not in (0, 255)]:
            unknown = inner_truth == 255
            pairs = list(zip((inner == index) & ~unknown, inner_truth == index, strict=True))
            self.objects.append(
                {"J": [jaccard(p, t) for p, t in pairs], "F": [boundary(p, t) for p, t in pairs]}
            )

    def means(self) -> dict[str, float]:
        """J, F and J&F over all objects."""
        means = {m: float(np.mean([np.mean(o[m]) for o in self.objects])) for m in ("J", "F")}
        return {**means, "J&F": (means["J"] + means["F"]) / 2}


def statistics(frames: Sequence[float]) -> tuple[float, float, float]:
    """Mean, recall (share over 0.5) and decay (first quarter less the last) of an object's frames
    (official `db_statistics`)."""
    values = np.array(frames)
    bins = np.round(np.linspace(1, len(values), 5) + 1e-10).astype(int) - 1
    quarters = [values[bins[i] : bins[i + 1] + 1] for i in range(4)]
    decay = np.mean(quarters[0]) - np.mean(quarters[3])
    return float(values.mean()), float((values > 0.5).mean()), float(decay)


def jaccard(prediction: Mask, truth: Mask) -> float:
    """IoU of two masks; 1 where both are empty."""
    union = np.count_nonzero(prediction | truth)
    return np.count_nonzero(prediction & truth) / union if union else 1.0


def boundary(prediction: Mask, truth: Mask, share: float = 0.008) -> float:
    """F of two masks' outlines: those count as met that lie within `share` of the diagonal."""
    radius = math.ceil(share * math.hypot(*truth.shape))
    ours, theirs = outline(prediction), outline(truth)
    precision = _met(ours, theirs, radius)
    recall = _met(theirs, ours, radius)
    if precision + recall == 0:
        return 0.0
    return 2 * precision * recall / (precision + recall)


def _met(one: Mask, other: Mask, radius: int) -> float:
    """Share of an outline's pixels within a radius of another; of an empty one: 1 if both are."""
    if not one.any():
        return 1.0
    if not other.any():
        return 0.0
    near = ndimage.distance_transform_edt(~other) <= radius
    return np.count_nonzero(one & near) / np.count_nonzero(one)


def outline(mask: Mask) -> Mask:
    """Pixels that differ from the one to the right, below, or below right (official `seg2bmap`)."""
    padded = np.pad(mask, ((0, 1), (0, 1)), "edge")
    here, right, below, both = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    found = (here ^ right) | (here ^ below) | (here ^ both)
    found[-1], found[:, -1] = here[-1] ^ right[-1], here[:, -1] ^ below[:, -1]
    found[-1, -1] = False
    return np.asarray(found)
