"""Progress: how far a job of like steps is, and how long the rest is likely to take."""

import time
from collections import deque
from collections.abc import Callable

RECENT = 8  # steps that the time left is taken from: later ones may be larger or smaller


class Progress:
    """Counts the steps of a job and says how far it is.

    Args:
        total: steps in all.
        clock: seconds, rising.
    """

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self.done, self._clock = total, 0, clock
        self._times = deque([clock()], RECENT + 1)

    def step(self) -> str:
        """Count a step and return where the job is: "3 of 12 · about 8 s left"."""
        self.done += 1
        self._times.append(self._clock())
        return str(self)

    @property
    def seconds_left(self) -> float | None:
        """Seconds that the rest takes at the pace of the last steps; None before the first."""
        steps = len(self._times) - 1
        if not steps:
            return None
        return (self._times[-1] - self._times[0]) / steps * max(0, self.total - self.done)

    def __str__(self) -> str:
        text, seconds = f"{self.done} of {self.total}", self.seconds_left
        if seconds is None or self.done >= self.total:
            return text
        return f"{text} · about {format_seconds(seconds)} left"


def format_seconds(seconds: float) -> str:
    """Return a time as people say it: "8 s", "3 min", "1 h 20 min"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"
