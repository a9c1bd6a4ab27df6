"""Comparison: does a tuned prompt beat the best that the same images give as plain examples?

Choosing flatters: the best of many options looks better than it is on the images it was chosen
by. So options are chosen on one half of the held-out images and scored on the other, both ways.

Letters: Q images, K ids, C = K + 1 with the background first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from incontext.errors import former_attributes
from incontext.evaluation.confusion import Counts, Interval, interval, miou

TUNED, CHANCE = "tuned", "one id everywhere"
MIN_GAIN = 0.5  # points; a smaller gain counts as none, however certain


@dataclass(frozen=True)
class Comparison:
    """mIoU of a tuned prompt and of baselines on held-out images, in percent, 90 % intervals.

    Attributes:
        baselines: plain examples, by how they were chosen.
        best: name of the best baseline.
        gain: of tuning over the best baseline, each chosen on the other half of the images.
        chance: of the one id that does best when it is painted everywhere.
        gain_over_chance: of tuning over that.
        held_out: number of images.
    """

    baselines: dict[str, Interval]
    best: str
    tuned: Interval
    gain: Interval
    chance: Interval
    gain_over_chance: Interval
    held_out: int

    if not TYPE_CHECKING:
        __getattr__ = former_attributes(
            untuned="baselines", over_chance="gain_over_chance", helps="improves"
        )

    @property
    def improves(self) -> bool:
        """True if the gain is certain and painting without looking does not bring it as well."""
        certain = self.gain.low > 0 and self.gain_over_chance.low > 0
        return certain and min(self.gain.value, self._table_gain) >= MIN_GAIN

    @property
    def _table_gain(self) -> float:
        """Points between the tuned prompt and the best baseline as the table shows them: there
        the baseline was chosen by all images, not crosswise."""
        return self.tuned.value - self.baselines[self.best].value

    def lines(self) -> list[str]:
        """Return a table and a conclusion in plain text."""
        width = max(map(len, [*self.baselines, CHANCE]))
        rows = {**self.baselines, TUNED: self.tuned, CHANCE: self.chance}
        return [
            f"mIoU on {self.held_out} held-out pictures, with 90 % intervals (tuned, and the gain: "
            "each half with what does best on the other):",
            *(f"  {name:<{width}}  {value}" for name, value in rows.items()),
            self._conclusion(),
        ]

    def _conclusion(self) -> str:
        gain = f"{self.gain.value:+.1f} [{self.gain.low:+.1f}, {self.gain.high:+.1f}]"
        if self.improves:
            return f"Tuning helps: {gain} points over the best untuned. Use the tuned prompt."
        if self.gain_over_chance.low <= 0 < self.gain.value:
            return (
                "Tuning learned nothing that can be seen in the pictures: it does no better than "
                f"{CHANCE}. Are the labels right? Use {self.best}, if anything."
            )
        if min(self.gain.value, self._table_gain) > 0:
            return (
                f"Tuning may help, but that is not sure: {gain} points over the best untuned. "
                f"Use {self.best}, or label more pictures and tune again."
            )
        if self.gain.value > 0:
            # The gain is over what each half would have chosen; the best of the table was luckier.
            return (
                f"Tuning does not help: {self.best} does as well ({self._table_gain:+.1f} points "
                "for the tuned prompt in the table). Use that."
            )
        return f"Tuning does not help ({gain} points). Use {self.best}."


def compare(baselines: Mapping[str, Counts], tuned: Sequence[Counts]) -> Comparison:
    """Compare by counts on the same held-out images, each (Q, C, C).

    Args:
        baselines: by how the examples were chosen.
        tuned: of each state that tuning went through.
    """
    names, options = list(baselines), list(baselines.values())
    plain_counts, tuned_counts = crossfit(options), crossfit(tuned)
    chance_counts = best_constant(plain_counts)
    return Comparison(
        baselines={name: interval(counts) for name, counts in baselines.items()},
        best=names[best_index(options)],
        tuned=interval(tuned_counts),
        gain=interval(tuned_counts, plain_counts),
        chance=interval(chance_counts),
        gain_over_chance=interval(tuned_counts, chance_counts),
        held_out=len(plain_counts),
    )


def best_constant(counts: Counts) -> Counts:
    """Return the counts if one id were painted everywhere, for the id that does best then."""
    true_pixels = counts.sum(2)  # (Q, C)
    options = []
    for index in range(1, true_pixels.shape[1]):
        painted = np.zeros_like(counts)
        painted[:, :, index] = true_pixels
        options.append(painted)
    return options[best_index(options)]


def crossfit(options: Sequence[Counts]) -> Counts:
    """Return for each image the counts of the option that does best on the other half."""
    if len(options[0]) < 2:
        return options[best_index(options)]
    scored = np.empty_like(options[0])
    halves = slice(0, None, 2), slice(1, None, 2)
    for test, choice in (halves, halves[::-1]):
        scored[test] = options[best_index([counts[choice] for counts in options])][test]
    return scored


def best_index(options: Sequence[Counts]) -> int:
    """Return the index of the option with the highest mIoU, the first of equals."""
    return int(np.argmax([_score(counts) for counts in options]))


def _score(counts: Counts) -> float:
    value = float(miou(counts))
    return -1.0 if np.isnan(value) else value
