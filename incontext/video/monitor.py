"""Drift: which frames of a video are worth a look, from what was answered for them alone."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from incontext.inference.segmentation import Segmentation

BEFORE = 8  # frames that a frame is compared with
JUMP = 2.0  # times larger or smaller than before
UNSURE = 0.6  # trust, or mean confidence over an object's pixels


@dataclass(frozen=True)
class Seen:
    """One object in one frame.

    `confidence`: how far its mask can be trusted, 0–1: what the memory's rule found, or else the
    mean over its pixels; 0 where there are none. `warning`: why the frame is worth a look, or "".
    """

    pixels: int
    presence: float
    confidence: float
    warning: str = ""


@dataclass
class Watch:
    """Looks at frames in the order in which they are answered.

    What it keeps hardly grows: a number for each frame with a warning.
    """

    bad: dict[int, float] = field(default_factory=dict)  # frames with warnings, and how bad
    areas: dict[int, deque[float]] = field(default_factory=dict)  # shares of the frame

    def look(
        self, frame: int, result: Segmentation, trust: Mapping[int, float], given: bool = False
    ) -> dict[int, Seen]:
        """What is seen of every id; a frame whose labels were `given` draws no warning."""
        seen = {i: self._one(result, i, trust.get(i), given) for i in result.presence}
        self._note(frame, seen)
        return seen

    def turn(self) -> None:
        """Frames go on elsewhere: what was seen before is no measure."""
        self.areas.clear()

    def worth_a_look(self) -> list[int]:
        """See the function of this name, of all frames so far."""
        return worth_a_look(self.bad)

    def _note(self, frame: int, seen: Mapping[int, Seen]) -> None:
        self.bad.pop(frame, None)
        warned = [one for one in seen.values() if one.warning]
        if warned:
            self.bad[frame] = sum(2 - one.confidence for one in warned)

    def _one(self, result: Segmentation, index: int, trust: float | None, given: bool) -> Seen:
        mask = result.labels == index
        pixels, there = int(mask.sum()), result.presence[index]
        sure = float(result.confidence[mask].mean()) if pixels else 0.0
        sure = sure if trust is None or not pixels else trust
        area, before = pixels / mask.size, self.areas.get(index)
        usual = float(np.median(before)) if before else None
        warning = "" if given else _warning(area, usual, there, sure)
        self._add(index, area)
        return Seen(pixels, there, sure, warning)

    def recall(self, frame: int, seen: Mapping[int, Seen], pixels: int) -> None:
        """A frame of so many pixels that was looked at before."""
        self._note(frame, seen)
        for index, one in seen.items():
            self._add(index, one.pixels / pixels)

    def _add(self, index: int, area: float) -> None:
        self.areas.setdefault(index, deque(maxlen=BEFORE)).append(area)


def _warning(area: float, usual: float | None, there: float, sure: float) -> str:
    if area and sure < UNSURE:
        return f"unsure, confidence {sure:.2f}"
    if 0.25 < there < 0.75:
        return f"there or not, presence {there:.2f}"
    if usual is None:
        return ""
    if not area:
        return "gone" if usual else ""
    if usual and max(area / usual, usual / area) > JUMP:
        return f"{area / usual:.1f} times as large as before"
    return ""


def worth_a_look(warned: dict[int, float], apart: int = 10) -> list[int]:
    """Frames to annotate anew, of those with warnings {frame: how bad}: the worst ones first,
    none within `apart` frames of another; ascending."""
    chosen: list[int] = []
    for frame in sorted(warned, key=lambda f: (-warned[f], f)):
        if all(abs(frame - other) >= apart for other in chosen):
            chosen.append(frame)
    return sorted(chosen)
