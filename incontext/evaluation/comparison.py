"""Verdict: does a tuned prompt beat the best that the same pictures give untuned?

Choosing flatters: the best of many options looks better than it is on the pictures it was chosen
by. So options are chosen on one half of the held-out pictures and judged on the other, both ways.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from incontext.evaluation.confusion import Counts, Interval, interval, miou

TUNED, CHANCE = "tuned", "one id everywhere"
LEAST = 0.5  # points; a smaller gain is none, however sure


@dataclass(frozen=True)
class Verdict:
    """mIoU in percent on held-out pictures, with 90 % intervals."""

    untuned: dict[str, Interval]  # by what was shown
    best: str  # of `untuned`
    tuned: Interval
    gain: Interval  # of tuning over the best untuned, each chosen by the other half
    chance: Interval  # one id painted everywhere, the one that does best so
    over_chance: Interval  # of tuning over that
    held_out: int

    @property
    def helps(self) -> bool:
        """Whether the gain is sure, and not what painting without looking brings as well."""
        sure = self.gain.low > 0 and self.over_chance.low > 0
        # Once chosen by one half and judged by the other, once as the table shows it.
        return sure and min(self.gain.value, self.tuned.value - self._best.value) >= LEAST

    @property
    def _best(self) -> Interval:
        return self.untuned[self.best]

    def lines(self) -> list[str]:
        """The verdict in words."""
        width = max(map(len, [*self.untuned, CHANCE]))
        rows = {**self.untuned, TUNED: self.tuned, CHANCE: self.chance}
        said = [
            f"mIoU on {self.held_out} held-out pictures, with 90 % intervals (tuned, and the gain: "
            "each half with what does best on the other):"
        ]
        said += [f"  {name:<{width}}  {value}" for name, value in rows.items()]
        gain = f"{self.gain.value:+.1f} [{self.gain.low:+.1f}, {self.gain.high:+.1f}]"
        if self.helps:
            said.append(f"Tuning helps: {gain} points over the best untuned. Use the tuned prompt.")
        elif self.over_chance.low <= 0 < self.gain.value:
            said.append(
                "Tuning learned nothing that can be seen in the pictures: it does no better than "
                f"{CHANCE}. Are the labels right? Use {self.best}, if anything."
            )
        elif min(self.gain.value, self.tuned.value - self._best.value) > 0:
            said.append(
                f"Tuning may help, but that is not sure: {gain} points over the best "
                "untuned. Use "
                f"{self.best}, or label more pictures and tune again."
            )
        else:
            said.append(f"Tuning does not help ({gain} points). Use {self.best}.")
        return said


def decide(untuned: Mapping[str, Counts], tuned: Sequence[Counts]) -> Verdict:
    """The verdict from counts on the same held-out pictures, each (Q, C, C).

    `tuned` are those of the states that tuning went through.
    """
    names = list(untuned)
    plain, learned = crossfit(list(untuned.values())), crossfit(tuned)
    best = names[best_of(list(untuned.values()))]
    blind = everywhere(plain)
    return Verdict(
        {name: interval(counts) for name, counts in untuned.items()}, best, interval(learned),
        interval(learned, plain), interval(blind), interval(learned, blind), len(plain),
    )  # fmt: skip


def everywhere(counts: Counts) -> Counts:
    """Counts of the same pictures with one id painted everywhere, the one that does best so."""
    true = counts.sum(2)  # (Q, C)
    options = []
    for index in range(1, true.shape[1]):
        painted = np.zeros_like(counts)
        painted[:, :, index] = true
        options.append(painted)
    return options[best_of(options)]


def crossfit(options: Sequence[Counts]) -> Counts:
    """Counts of each picture with the option that does best on the other half of the pictures."""
    if len(options[0]) < 2:
        return options[best_of(options)]
    judged = np.empty_like(options[0])
    halves = slice(0, None, 2), slice(1, None, 2)
    for judge, choose in (halves, halves[::-1]):
        judged[judge] = options[best_of([counts[choose] for counts in options])][judge]
    return judged


def best_of(options: Sequence[Counts]) -> int:
    """Number of the option with the highest mIoU, the first of several."""
    return int(np.argmax([_score(counts) for counts in options]))


def _score(counts: Counts) -> float:
    value = float(miou(counts))
    return -1.0 if np.isnan(value) else value
