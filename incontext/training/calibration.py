"""Calibrate a voting model: presence of ids, probability of pixels, quality of masks."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from incontext.data.pictures import PictureSet
from incontext.errors import InputError
from incontext.model import VotingModel, assemble
from incontext.model.config import READING_PARTS
from incontext.model.quality import MaskSums, QualityHead
from incontext.training.presence import LOGITS, Rows, collect_rows, fit_head
from incontext.training.presence import WIDTH as PRESENCE_WIDTH

WIDTH = 16  # of the quality head's hidden layer
STEPS, RATE, DECAY = 300, 0.02, 0.1  # of its training, on all rows at once
PRIOR = 0.9  # share of queries that show the object, which quality takes for granted


def calibrate(
    model: VotingModel,
    sets: Sequence[PictureSet],
    episodes: int,
    *,
    seed: int = 0,
    on_progress: Callable[[int], object] = lambda count: None,
) -> VotingModel:
    """Return the model with what says how sure its answers are, fitted to labelled images.

    Half of the queries drawn show the object; of the others half are images of the same set that
    lack the class, if there are any, and half are images of another domain.

    Args:
        sets: semantic ones, held at the model's image size.
        episodes: queries of each set.

    Raises:
        InputError: no set has two images of a class, or the model segments nothing in any.
    """
    rows = collect_rows(model, sets, episodes, seed=seed, on_progress=on_progress)
    rows = Rows(
        *(x.clone() for x in rows)
    )  # what was made in inference mode cannot be learned from
    config = replace(model.config, presence_width=PRESENCE_WIDTH, quality_width=WIDTH)
    torch.manual_seed(seed)
    fitted = assemble(config)
    assert isinstance(fitted, VotingModel)
    others = {k: x for k, x in model.state_dict().items() if not k.startswith(READING_PARTS)}
    fitted.load_state_dict(others, strict=False)
    fit_head(fitted, rows, seed)
    assert fitted.presence is not None
    with torch.no_grad():
        presence = fitted.presence(rows.evidence)
    line = fit_line(rows, presence)
    fitted.config = replace(config, calibration=line)
    assert fitted.quality is not None
    fit_quality(fitted.quality, rows, presence, line, seed)
    return fitted.eval()


def fit_line(rows: Rows, presence: Tensor) -> tuple[float, float]:
    """Fit slope and offset of pixels' logits to queries that show the object.

    Every set counts alike. Pixels are no surer than the id's presence, as in `VotingModel.paint`.

    Args:
        presence: (R,) logits.
    """
    weight = rows.present / _count_of_set(rows, rows.present)
    weight = weight[:, None] / rows.pixels[:, :1].sum((1, 2))[:, None].clamp(min=1)
    logits = _capped(presence).double()
    hits = rows.pixels[:, 1]
    misses = rows.pixels[:, 0] - hits
    line = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([line], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        x = line[0] * logits + line[1]
        loss = ((F.softplus(-x) * hits + F.softplus(x) * misses) * weight).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    slope, offset = line.tolist()
    return round(slope, 4), round(offset, 4)


def fit_quality(
    head: QualityHead, rows: Rows, presence: Tensor, line: tuple[float, float], seed: int = 0
) -> float:
    """Fit a quality head to the masks of queries; of those that have none nothing is learned.

    Args:
        presence: (R,) logits.
        line: slope and offset of calibrated logits.

    Returns:
        The mean squared error of the IoU.

    Raises:
        InputError: fewer than two masks.
    """
    torch.manual_seed(seed)
    logits = _capped(presence)
    sums = MaskSums(*line)
    sums.add(logits, rows.pixels[:, 0])
    features = sums.features()
    truth = mask_iou(logits, rows.pixels)
    shown = ((logits > 0) * rows.pixels[:, 0]).sum(1) > 0
    if shown.sum() < 2:
        raise InputError("nothing is segmented in these sets: there is no quality to learn")
    share = torch.where(rows.present, PRIOR, 1 - PRIOR)
    weight = shown * share / _count_of_set(rows, rows.present)
    weight = weight / weight.sum()
    head.mean.copy_(features[shown].mean(0))
    head.spread.copy_(features[shown].std(0).clamp(min=1e-3))
    head.requires_grad_(True)
    optimizer = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=DECAY)
    for _ in range(STEPS):
        loss = ((head(features) - truth).square() * weight).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def mask_iou(logits: Tensor, pixels: Tensor) -> Tensor:
    """Return the IoU of masks (logits above 0) with the truth: (R, BINS), (R, 2, BINS) → (R,)."""
    inside = logits > 0
    every, truth = pixels.unbind(1)
    both = (truth * inside).sum(1)
    return both / ((every * inside).sum(1) + (truth * ~inside).sum(1)).clamp(min=1)


def _capped(presence: Tensor) -> Tensor:
    """Return the logits of pixels under each query's presence: (R, BINS)."""
    return LOGITS.expand(len(presence), -1).minimum(presence[:, None])


def _count_of_set(rows: Rows, sort: Tensor) -> Tensor:
    """Return for each row how many are of its set and sort (R,)."""
    group = rows.sets * 2 + sort
    return torch.bincount(group)[group]
