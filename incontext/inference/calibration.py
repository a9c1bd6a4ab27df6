"""Calibration: paintings to probabilities that mean what they say, and to the quality of masks.

A painting mixes two colors by how sure the model is; whether nine in ten of the pixels at 0.9 are
right is another matter. What corrects it is fitted to images with masks (`incontext calibrate`) and
is part of the checkpoint. Letters: K ids of the prompt, H W pixels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from incontext.labels.coloring import TEMPERATURE, Coloring
from incontext.model import Model, VotingModel
from incontext.model.quality import MaskSums, QualityHead

LIMIT = 10.0  # of a logit, beyond which nothing is surer


@dataclass(frozen=True, eq=False)
class Calibration:
    """How sure a painting is, and how good its masks are.

    Attributes:
        slope, offset: logits of a painting times slope plus offset are calibrated ones.
        head: reads quality; None: it is the IoU to expect if pixels were independent.
    """

    slope: float = 1.0
    offset: float = 0.0
    head: QualityHead | None = None

    @classmethod
    def from_model(cls, model: Model) -> "Calibration":
        """Return that of a checkpoint; one without has the painting as it is."""
        slope, offset = model.config.calibration
        return cls(slope, offset, model.quality if isinstance(model, VotingModel) else None)

    def probability(self, logits: Tensor) -> Tensor:
        """Return calibrated probabilities, 0–1."""
        return torch.sigmoid(self.slope * logits + self.offset)

    @torch.inference_mode()
    def quality(
        self, probabilities: Tensor, scales: Tensor | None, valid: Tensor | None = None
    ) -> Tensor:
        """Return the IoU of every id's mask with the true one to expect, (K,) in 0–1.

        The mask is where the id is the most probable.

        Args:
            probabilities: (K + 1, H, W), background first, on the CPU.
            scales: see `id_logits`.
            valid: (H, W) bool, the pixels that count; None: all.
        """
        sums = MaskSums(self.slope, self.offset)
        for rows in _bands(probabilities):
            logits = rearrange(id_logits(probabilities[:, rows], scales), "k h w -> k (h w)")
            counts = torch.ones(1, logits.shape[1])
            if valid is not None:
                counts = rearrange(valid[rows].float(), "h w -> 1 (h w)")
            sums.add(logits, counts)
        if self.head is None:
            return sums.expected_iou()
        features = sums.features().to(self.head.mean)
        return self.head(features).float().cpu() * (sums.expected_iou() > 0)


def margin_logit(log_ratio: Tensor, scale: Tensor | None) -> Tensor:
    """Return how strongly an id is painted beside its rival, from the log of their probabilities.

    The share of the id's color in the mix of both, as a logit: 0 where they are equally strong.
    `Coloring.probabilities` is a softmax over distances to colors, which are linear in that share.

    Args:
        scale: the coloring's gap over the distance of both colors, in 0–1; None: the probabilities
            were not read from colors, so that their ratio is that of the shares.
    """
    if scale is None:
        return log_ratio.clamp(-LIMIT, LIMIT)
    share = 0.5 + TEMPERATURE / 2 * log_ratio * scale
    return torch.logit(share.clamp(1e-6, 1 - 1e-6)).clamp(-LIMIT, LIMIT)


def pair_scales(ids: Sequence[int], colorings: Sequence[Coloring]) -> Tensor:
    """Return for each pair of background and ids, of one pass, `scale` of `margin_logit`.

    (K + 1, K + 1), background first; 1 for ids of different passes.
    """
    scales = torch.ones(len(ids) + 1, len(ids) + 1)
    for coloring in colorings:
        colors = torch.tensor([(0, 0, 0), *coloring.colors], dtype=torch.float32)
        distance = (colors[:, None] - colors).abs().mean(-1).clamp(min=coloring.gap)
        rows = torch.tensor([0, *(1 + ids.index(i) for i in coloring.ids)])
        scales[rows[:, None], rows] = coloring.gap / distance
    return scales


def id_logits(probabilities: Tensor, scales: Tensor | None) -> Tensor:
    """Return `margin_logit` of every id: probabilities (K + 1, H, W) → (K, H, W).

    Args:
        scales: (K + 1, K + 1) of `pair_scales`; None: the probabilities were not read from colors.
    """
    logs = probabilities.clamp(min=1e-30).log()
    if len(logs) == 2:  # one id, whose rival is the background: most prompts
        return margin_logit(logs[1:] - logs[:1], None if scales is None else scales[1, 0])
    values, indices = logs.topk(2, 0)
    number = torch.arange(len(logs)).view(-1, 1, 1)
    is_best = indices[:1] == number
    rival = torch.where(is_best, indices[1:], indices[:1])
    log_ratio = logs - torch.where(is_best, values[1:], values[:1])
    scale = None if scales is None else scales[number, rival]
    return margin_logit(log_ratio, scale)[1:]


def _bands(values: Tensor, budget: int = 2**24) -> Iterator[slice]:
    """Yield slices of rows of (C, H, W) with about `budget` elements each."""
    step = max(1, budget // (values.shape[0] * values.shape[2]))
    for at in range(0, values.shape[1], step):
        yield slice(at, at + step)
