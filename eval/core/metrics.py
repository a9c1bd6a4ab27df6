"""Metrics on label maps: few-shot IoU, and J&F of videos."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from incontext.data.pictures import IGNORE_INDEX
from incontext.evaluation.confusion import Interval, Numbers, interval_around, resamples

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Maps = np.ndarray[Any, np.dtype[Any]]


class FewShotIoU:
    """The usual few-shot protocol (HSNet `AverageMeter`): sums by class, then ratios.

    Intersections and unions of foreground and background are summed over the episodes of a class;
    mIoU is the mean foreground IoU over the classes of the episodes, FB-IoU the mean of foreground
    and background over all episodes. All in percent.

    Attributes:
        rows: an episode each: class, intersection and union of the background, of the foreground.
    """

    def __init__(self, rows: Iterable[Sequence[int]] = ()) -> None:
        self.rows: list[list[int]] = [list(row) for row in rows]

    def add(
        self, index: int, prediction: Mask, truth: Mask, ignore_mask: Mask | None = None
    ) -> None:
        """Count one episode of class `index`; masks (H, W) bool, ignored pixels are left out."""
        valid = np.ones_like(truth) if ignore_mask is None else ~ignore_mask
        row = [index]
        for p, t in ((~prediction, ~truth), (prediction, truth)):
            row += [int((p & t & valid).sum()), int(((p | t) & valid).sum())]
        self.rows.append(row)

    def per_class(self) -> dict[int, float]:
        """Return the IoU of each class."""
        return {
            index: 100 * intersection / max(1.0, union)
            for index, (intersection, union) in sorted(self._sums(slice(3, 5)).items())
        }

    def _sums(self, columns: slice) -> dict[int, Any]:
        rows = np.array(self.rows, float).reshape(-1, 5)
        return {int(i): rows[rows[:, 0] == i, columns].sum(0) for i in np.unique(rows[:, 0])}

    def miou(self) -> float:
        """Return the mean IoU over classes; NaN without episodes."""
        values = list(self.per_class().values())
        return float(np.mean(values)) if values else float("nan")

    def fb_iou(self) -> float:
        """Return the mean of foreground and background IoU over all episodes."""
        total = np.array(self.rows, float).reshape(-1, 5)[:, 1:].sum(0).reshape(2, 2)
        return float(100 * np.mean(total[:, 0] / np.maximum(total[:, 1], 1)))

    def dice(self) -> float:
        """Return the mean over classes of 2·intersection / (union + intersection)."""
        values = [200 * i / max(1.0, u + i) for i, u in self._sums(slice(3, 5)).values()]
        return float(np.mean(values)) if values else float("nan")

    def bootstrap(self, seed: int = 0) -> Numbers:
        """Return the mIoU of every bootstrap resample of the episodes, class by class: (R,)."""
        rows = np.array(self.rows, float).reshape(-1, 5)
        by_class = []
        for index in np.unique(rows[:, 0]):
            counts = rows[rows[:, 0] == index, 3:]
            intersection, union = (resamples(len(counts), seed + int(index)) @ counts).T
            by_class.append(100 * intersection / np.maximum(union, 1))
        return np.asarray(np.mean(by_class, 0))

    def interval(self) -> Interval:
        """Return the mIoU with its 90 % interval, which holds for these classes."""
        return interval_around(self.miou(), self.bootstrap(), len(self.rows))


class JandF:
    """Region similarity J and boundary accuracy F of objects through a video (DAVIS 2017,
    semi-supervised; official `davis2017-evaluation`).

    The first and the last frame are left out; J is IoU, F the harmonic mean of precision and recall
    of the outlines. An object that is neither in the truth nor predicted counts 1. All in 0–1.

    Attributes:
        objects: J and F of every frame, an object each.
    """

    def __init__(self) -> None:
        self.objects: list[dict[str, list[float]]] = []

    def add(self, truth: Maps, prediction: Maps) -> None:
        """Score one clip, (T, H, W) ids each; objects are the ids of the truth except 255."""
        inner_truth, inner = truth[1:-1], prediction[1:-1]
        for index in [int(i) for i in np.unique(truth) if i not in (0, IGNORE_INDEX)]:
            valid = inner_truth != IGNORE_INDEX
            pairs = list(zip((inner == index) & valid, inner_truth == index, strict=True))
            self.objects.append(
                {"J": [jaccard(p, t) for p, t in pairs], "F": [boundary(p, t) for p, t in pairs]}
            )

    def means(self) -> dict[str, float]:
        """Return the mean J, F and J&F over all objects."""
        means = {m: float(np.mean([np.mean(o[m]) for o in self.objects])) for m in ("J", "F")}
        return {**means, "J&F": (means["J"] + means["F"]) / 2}


def statistics(frames: Sequence[float]) -> tuple[float, float, float]:
    """Return mean, recall and decay of an object's frames (official `db_statistics`).

    Recall is the share over 0.5, decay the mean of the first quarter less that of the last.
    """
    values = np.array(frames)
    bins = np.round(np.linspace(1, len(values), 5) + 1e-10).astype(int) - 1
    quarters = [values[bins[i] : bins[i + 1] + 1] for i in range(4)]
    decay = np.mean(quarters[0]) - np.mean(quarters[3])
    return float(values.mean()), float((values > 0.5).mean()), float(decay)


def jaccard(prediction: Mask, truth: Mask) -> float:
    """Return the IoU of two masks; 1 where both are empty."""
    union = np.count_nonzero(prediction | truth)
    return np.count_nonzero(prediction & truth) / union if union else 1.0


def boundary(prediction: Mask, truth: Mask, share: float = 0.008) -> float:
    """Return F of two masks' outlines, matched within `share` of the image's diagonal."""
    radius = math.ceil(share * math.hypot(*truth.shape))
    predicted_outline, true_outline = outline(prediction), outline(truth)
    precision = _matched_share(predicted_outline, true_outline, radius)
    recall = _matched_share(true_outline, predicted_outline, radius)
    if precision + recall == 0:
        return 0.0
    return 2 * precision * recall / (precision + recall)


def _matched_share(edges: Mask, reference: Mask, radius: int) -> float:
    """Return the share of an outline's pixels within a radius of a reference; 1 if it is empty."""
    if not edges.any():
        return 1.0
    if not reference.any():
        return 0.0
    near = ndimage.distance_transform_edt(~reference) <= radius
    return np.count_nonzero(edges & near) / np.count_nonzero(edges)


def outline(mask: Mask) -> Mask:
    """Mark pixels that differ from the one to the right, below, or both (official `seg2bmap`)."""
    padded = np.pad(mask, ((0, 1), (0, 1)), "edge")
    center, right = padded[:-1, :-1], padded[:-1, 1:]
    below, diagonal = padded[1:, :-1], padded[1:, 1:]
    edges = (center ^ right) | (center ^ below) | (center ^ diagonal)
    edges[-1], edges[:, -1] = center[-1] ^ right[-1], center[:, -1] ^ below[:, -1]
    edges[-1, -1] = False
    return np.asarray(edges)
