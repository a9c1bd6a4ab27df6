"""Calibration: paintings to probabilities that mean what they say, and to the expected IoU.

A painting mixes two colors by how sure the model is; whether nine in ten of the pixels at 0.9 are
right is another matter. Four numbers, fitted to images with masks (`incontext calibrate`), correct
it. Letters: K ids of the prompt, H W pixels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from incontext.labels.coloring import TEMPERATURE

LIMIT = 10.0  # of a logit, beyond which nothing is surer
# How the first look at a mask turns logits to probabilities, whatever the model.
FIRST_SLOPE, FIRST_OFFSET = 0.5, -0.3
PRIOR_PIXELS = 1.0  # right ones and wrong ones, which every mask has besides its own


@dataclass(frozen=True)
class Calibration:
    """Logits x of a painting to calibrated ones: (slope + tilt · s) · x + offset + shift · s.

    s is the id's score: the logit of the IoU that its mask would have if the painting were nearly
    right as it is. Pixels of a doubtful mask are less sure than they look.
    """

    slope: float = 1.0
    offset: float = 0.0
    tilt: float = 0.0
    shift: float = 0.0

    def apply(self, logits: Tensor, score: Tensor) -> Tensor:
        """Return calibrated probabilities, 0–1, of logits and scores that broadcast."""
        slope = self.slope + self.tilt * score
        return torch.sigmoid(slope * logits + self.offset + self.shift * score)

    def assess(self, probabilities: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return score and expected IoU of every id's mask.

        The mask is where the id is the most probable; its expected intersection with the true one
        is put over their expected union, as if pixels were independent.

        Args:
            probabilities: (K + 1, H, W) of `Coloring.probabilities`, background first.
            valid: (H, W) bool, the pixels that count; None: all.

        Returns:
            Scores (K,), and expected IoU (K,) in 0–1, 0 for an empty mask.
        """
        inside, outside, pixels = _sum_masks(
            probabilities, valid, lambda x: torch.sigmoid(FIRST_SLOPE * x + FIRST_OFFSET)
        )
        first = (inside + PRIOR_PIXELS) / (pixels + outside + 2 * PRIOR_PIXELS)
        score = torch.logit(first.clamp(0.02, 0.98))
        inside, outside, pixels = _sum_masks(
            probabilities, valid, lambda x: self.apply(x, score[:, None, None])
        )
        return score, inside / (pixels + outside).clamp(min=1e-6)


def margin_logit(log_ratio: Tensor) -> Tensor:
    """Return how strongly an id is painted beside its rival, from the log of their probabilities.

    The share of the id's color in the mix of both, as a logit: 0 where they are equally strong.
    `Coloring.probabilities` is a softmax over distances to colors, which are linear in that share.
    """
    share = 0.5 + TEMPERATURE / 2 * log_ratio
    return torch.logit(share.clamp(1e-6, 1 - 1e-6)).clamp(-LIMIT, LIMIT)


def id_logits(probabilities: Tensor) -> Tensor:
    """Return `margin_logit` of every id: probabilities (K + 1, H, W) → (K, H, W)."""
    logs = probabilities.clamp(min=1e-30).log()
    best = logs.topk(2, 0)
    number = torch.arange(len(logs)).view(-1, 1, 1)
    rival = torch.where(best.indices[:1] == number, best.values[1:], best.values[:1])
    return margin_logit(logs - rival)[1:]


def _sum_masks(
    probabilities: Tensor, valid: Tensor | None, convert: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum converted logits inside and outside of the masks, and count their pixels: (K,) each."""
    totals = torch.zeros(3, len(probabilities) - 1)
    for rows in _bands(probabilities):
        logits = id_logits(probabilities[:, rows])
        mask, probability = logits > 0, convert(logits)
        if valid is not None:
            mask, probability = mask & valid[rows], probability * valid[rows]
        inside = (probability * mask).sum((1, 2))
        outside = probability.sum((1, 2)) - inside
        totals += torch.stack([inside, outside, mask.sum((1, 2))])
    return totals[0], totals[1], totals[2]


def _bands(values: Tensor, budget: int = 2**24) -> Iterator[slice]:
    """Yield slices of rows of (C, H, W) with about `budget` elements each."""
    step = max(1, budget // (values.shape[0] * values.shape[2]))
    for at in range(0, values.shape[1], step):
        yield slice(at, at + step)
