"""Quality monitor: which frames of a video should be reviewed, from their results alone."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from incontext.inference.segmentation import Segmentation

WINDOW = 8  # frames that a frame is compared with
JUMP = 2.0  # times larger or smaller than before
UNSURE = 0.6  # trust, or expected IoU
UNDECIDED = 0.06  # distance of presence from 0.5 within which an object may be there or not


@dataclass(frozen=True)
class ObjectStats:
    """One object in one frame.

    Attributes:
        pixels: of its mask.
        presence: how sure the model is that the object is in the frame, 0–1.
        confidence: how far its mask can be trusted, 0–1: what the memory's policy found, or else
            the quality of the mask; 0 without one.
        warning: why the frame should be reviewed, or "".
    """

    pixels: int
    presence: float
    confidence: float
    warning: str = ""


@dataclass
class QualityMonitor:
    """Compares frames with those before, in the order in which they are segmented.

    What it keeps hardly grows: a number for each frame with a warning.
    """

    severity: dict[int, float] = field(default_factory=dict)  # of frames with warnings
    areas: dict[int, deque[float]] = field(default_factory=dict)  # shares of the frame

    def update(
        self, frame: int, result: Segmentation, trust: Mapping[int, float], annotated: bool = False
    ) -> dict[int, ObjectStats]:
        """Return the statistics of every id; an annotated frame gets no warning."""
        stats = {i: self._measure(result, i, trust.get(i), annotated) for i in result.presence}
        self._rate(frame, stats)
        return stats

    def reset_baseline(self) -> None:
        """Forget the areas so far: the frames continue elsewhere."""
        self.areas.clear()

    def frames_to_review(self) -> list[int]:
        """Return those of all frames so far, see `frames_to_review`."""
        return frames_to_review(self.severity)

    def replay(self, frame: int, stats: Mapping[int, ObjectStats], pixels: int) -> None:
        """Take over the statistics of a frame from an earlier run.

        Args:
            pixels: of the frame.
        """
        self._rate(frame, stats)
        for index, item in stats.items():
            self._add_area(index, item.pixels / pixels)

    def _rate(self, frame: int, stats: Mapping[int, ObjectStats]) -> None:
        self.severity.pop(frame, None)
        doubtful = [item for item in stats.values() if item.warning]
        if doubtful:
            self.severity[frame] = sum(2 - item.confidence for item in doubtful)

    def _measure(
        self, result: Segmentation, index: int, trust: float | None, annotated: bool
    ) -> ObjectStats:
        mask = result.labels == index
        pixels, presence = int(mask.sum()), result.presence[index]
        quality = result.quality.get(index, presence) if pixels else 0.0
        confidence = quality if trust is None or not pixels else trust
        area, areas = pixels / mask.size, self.areas.get(index)
        usual_area = float(np.median(areas)) if areas else None
        warning = "" if annotated else _warning(area, usual_area, presence, confidence)
        self._add_area(index, area)
        return ObjectStats(pixels, presence, confidence, warning)

    def _add_area(self, index: int, area: float) -> None:
        self.areas.setdefault(index, deque(maxlen=WINDOW)).append(area)


def _warning(area: float, usual_area: float | None, presence: float, confidence: float) -> str:
    if area and confidence < UNSURE:
        return f"unsure, confidence {confidence:.2f}"
    if abs(presence - 0.5) < UNDECIDED:
        return f"there or not, presence {presence:.2f}"
    if usual_area is None:
        return ""
    if not area:
        return "gone" if usual_area else ""
    if usual_area and max(area / usual_area, usual_area / area) > JUMP:
        return f"{area / usual_area:.1f} times as large as before"
    return ""


def frames_to_review(severity: dict[int, float], distance: int = 10) -> list[int]:
    """Return the worst frames, none within `distance` frames of a worse one; ascending.

    Args:
        severity: of frames with warnings.
    """
    frames: list[int] = []
    for frame in sorted(severity, key=lambda f: (-severity[f], f)):
        if all(abs(frame - worse) >= distance for worse in frames):
            frames.append(frame)
    return sorted(frames)
