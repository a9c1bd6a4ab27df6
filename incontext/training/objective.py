"""The training objective: what a painting of a batch of episodes costs.

Every term is an average over episodes of what each episode costs, so that a batch split over
processes or micro-batches gives the very same gradient.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from incontext.data.episodes import Batch
from incontext.data.pictures import IGNORE_INDEX
from incontext.model import Model, VotingModel, painting_loss
from incontext.model.tokens.encoder import EncodedPrompt
from incontext.model.votes.votes import Voters
from incontext.model.votes.voting import ids_of_other_views

SMOOTH = 20.0  # pixels in Dice's fraction, so that tiny objects do not rule the loss


@dataclass(frozen=True)
class Weights:
    """How much each term counts beside the painting's own loss."""

    overlap: float = 0.5  # Dice of the labels read back
    copied: float = 0.3  # the copy path's own colors


def balance(labels: Tensor, classes: int, judged: Tensor | None = None) -> Tensor:
    """Weight of every query pixel, (B, H, W): classes by the root of their frequency.

    Plain averages let a small object vanish: painting everything black costs next to nothing.
    Ignored pixels, and those where `judged` (B, H, W) is False, weigh 0. The mean over an episode
    is 1, 0 if nothing in it is judged.
    """
    known = F.one_hot(labels.clamp(max=classes).long(), classes + 1)
    valid = labels != IGNORE_INDEX
    if judged is not None:
        valid = valid & judged
    known = known * valid[..., None]
    share = known.float().mean((1, 2))  # (B, K + 1)
    weight = torch.where(share > 0, share.clamp(min=1e-3).rsqrt(), 0.0)
    weight = weight / (weight * share).sum(1, keepdim=True).clamp(min=1e-6)
    return (known * weight[:, None, None]).sum(-1)


def overlap_loss(
    painting: Tensor, labels: Tensor, colors: Tensor, asked: Tensor, judged: Tensor | None = None
) -> Tensor:
    """Soft Dice of the labels read back from the painting by color distance (V-Net, eq. 1).

    Args:
        painting: (B, 3, H, W) normalized.
        labels: (B, H, W), 0 … K, 255 = ignore.
        colors: (B, K + 1, 3) normalized.
        asked: (B, K + 1) bool, classes that an example shows. One that the query lacks is judged
            too: all that is painted in its color is too much.
        judged: (B, H, W) bool, pixels that count; None: all.

    Returns:
        Mean over episodes of the mean over their asked classes; 0 for an episode without any.
    """
    distance = (painting[:, None] - colors[..., None, None]).abs().mean(2)  # (B, K + 1, H, W)
    classes = colors.shape[1]
    present = F.one_hot(labels.clamp(max=classes - 1).long(), classes).permute(0, 3, 1, 2)
    valid = labels != IGNORE_INDEX
    if judged is not None:
        valid = valid & judged
    present = present * valid[:, None]
    counted = asked.clone()
    counted[:, 0] = False
    # Colors that the episode does not use must not take part; the background always does.
    unused = ~counted
    unused[:, 0] = False
    score = (-4.0 * distance).masked_fill(unused[..., None, None], -1e4).softmax(1)
    score = score * valid[:, None]
    both = (score * present).sum((2, 3))
    dice = 1 - (2 * both + 1) / (score.sum((2, 3)) + present.sum((2, 3)) + 1)
    return ((dice * counted).sum(1) / counted.sum(1).clamp(min=1)).mean()


def objective(
    model: torch.nn.Module,
    mean: Tensor,
    std: Tensor,
    weights: Weights,
    batch: Batch,
    hidden: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of a batch, and its parts by name.

    Args:
        mean, std: (3, 1, 1), normalization of the model's RGB.
        hidden: (B, 2h, w) bool over the canvas, True = paint; None hides the query half whole.
    """
    images = (batch.images - mean) / std
    targets = (batch.targets() - mean) / std
    truth, labels = targets[:, -1], batch.labels[:, -1]
    painting, copied = model(
        images[:, -1], images[:, :-1], targets[:, :-1], batch.semantic, with_copied=True,
        hidden=hidden, query_targets=None if hidden is None else truth,
    )  # fmt: skip
    judged = None if hidden is None else _pixels(hidden, labels)
    colors = (batch.colors - mean.view(3)) / std.view(3)
    return judge(painting, copied, truth, labels, colors, batch.shown_classes(), weights, judged)


def voting_objective(
    model: torch.nn.Module, mean: Tensor, std: Tensor, batch: Batch
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of a batch for a voting model, and its parts by name; every view is a query once."""
    used = int(torch.where(batch.labels == IGNORE_INDEX, 0, batch.labels).max())
    ids = torch.arange(1, max(1, used) + 1, device=batch.labels.device)
    labels = (batch.labels[:, :, None] == ids.view(-1, 1, 1)).to(batch.images.dtype)
    known = batch.labels != IGNORE_INDEX
    logits, guess = model((batch.images - mean) / std, labels, known)
    asked = ids_of_other_views(labels).flatten(0, 1)
    truth = labels.flatten(0, 1) * asked[..., None, None]  # what nobody shows is ground
    return judge_votes(logits, guess, truth, known.flatten(0, 1), asked)


def judge_votes(
    logits: Tensor, guess: Tensor, truth: Tensor, known: Tensor, asked: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """What the logits of a voting model cost, and the parts by name.

    Twice the cross-entropy of all ids and the ground, plus a soft Dice of each id (V-Net, eq. 1),
    plus half the binary cross-entropy of the first guess.

    Args:
        logits: (B, K, H, W), of ids against the ground's 0.
        guess: (B, K, h, w) logits.
        truth: (B, K, H, W) in 0–1, which pixels are of which id.
        known: (B, H, W) bool, pixels that count.
        asked: (B, K) bool, ids that an example shows; queries that are asked nothing count nothing.
    """
    valid = known.to(truth.dtype)
    truth = truth * valid[:, None]
    ground = torch.zeros_like(logits[:, :1], dtype=torch.float32)
    chances = torch.cat([ground, logits.float()], 1).log_softmax(1)
    whole = torch.cat([valid[:, None] - truth.sum(1, keepdim=True), truth], 1)
    pixels = valid.sum((1, 2)).clamp(min=1)
    crossed = -(chances * whole).sum((1, 2, 3)) / pixels
    score = chances[:, 1:].exp() * valid[:, None]
    both, all_of = (score * truth).sum((2, 3)), (score + truth).sum((2, 3))
    dice = 1 - (2 * both + SMOOTH) / (all_of + SMOOTH)
    size = (guess.shape[-2], guess.shape[-1])
    coarse, sure = (F.adaptive_avg_pool2d(x, size) for x in (truth, valid[:, None]))
    coarse = coarse / sure.clamp(min=1e-6)  # of the pixels that count
    early = F.binary_cross_entropy_with_logits(guess.float(), coarse, reduction="none")
    early = (early * sure).sum((2, 3)) / sure.sum((2, 3)).clamp(min=1e-6)
    ids = asked.sum(1).clamp(min=1)
    counted = asked.any(1).float()
    terms = {
        "crossed": crossed, "overlap": (dice * asked).sum(1) / ids,
        "early": (early * asked).sum(1) / ids,
    }  # fmt: skip
    parts = {name: (term * counted).mean() for name, term in terms.items()}
    loss = 2 * parts["crossed"] + parts["overlap"] + 0.5 * parts["early"]
    return loss, {name: x.detach() for name, x in {"loss": loss, **parts}.items()}


def judge_prompt(
    model: Model, encoded: EncodedPrompt, queries: Tensor, labels: Tensor, colors: Tensor
) -> Tensor:
    """What one prompt costs on queries whose labels are known: `judge_votes`, or `judge`.

    Args:
        queries: (B, 3, H, W) normalized.
        labels: (B, H, W), 0 … K, 255 = ignore.
        colors: (K + 1, 3) normalized, the ground's first.
    """
    ids = len(colors) - 1
    if isinstance(model, VotingModel):
        assert isinstance(encoded.cache, Voters)
        logits, guess = model.vote(model.embed_images(queries), encoded.cache)
        numbers = torch.arange(1, ids + 1, device=labels.device).view(-1, 1, 1)
        truth = (labels[:, None] == numbers).to(queries.dtype)
        asked = torch.ones(truth.shape[:2], dtype=torch.bool, device=labels.device)
        return judge_votes(logits, guess, truth, labels != IGNORE_INDEX, asked)[0]
    painting, copied = model.paint_and_copy(queries, encoded)
    known = torch.where(labels == IGNORE_INDEX, 0, labels).long()
    truth = colors[known].permute(0, 3, 1, 2)
    asked = torch.ones(1, ids + 1, dtype=torch.bool, device=labels.device)
    return judge(painting, copied, truth, labels, colors[None], asked, Weights())[0]


def judge(
    painting: Tensor,
    copied: Tensor | None,
    truth: Tensor,
    labels: Tensor,
    colors: Tensor,
    asked: Tensor,
    weights: Weights,
    judged: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """What paintings cost, and the parts by name.

    Args:
        painting, truth: (B, 3, H, W) normalized, what was painted and what should be.
        copied: (B, 3, H/4, W/4), the copy path's own colors, None without one.
        labels, colors, asked, judged: see `overlap_loss`.
    """
    painting = painting.float()
    weight = balance(labels, colors.shape[1] - 1, judged)[:, None]
    everywhere = torch.ones(len(painting), 1, 1, dtype=torch.bool, device=painting.device)
    painted = _mean_loss(painting, truth, everywhere, weight)
    overlap = overlap_loss(painting, labels, colors, asked, judged)
    loss = painted + weights.overlap * overlap
    parts = {"painted": painted.detach(), "overlap": overlap.detach()}
    if copied is not None:
        size = (copied.shape[-2], copied.shape[-1])
        small, counted = (F.adaptive_avg_pool2d(x, size) for x in (truth, weight))
        brought = _mean_loss(copied.float(), small, everywhere, counted)
        loss = loss + weights.copied * brought
        parts["copied"] = brought.detach()
    return loss, {"loss": loss.detach(), **parts}


def _mean_loss(painting: Tensor, truth: Tensor, hidden: Tensor, weight: Tensor) -> Tensor:
    """`painting_loss` averaged over episodes: weights have mean 1 in each, or 0 in empty ones.

    `painting_loss` divides by the weights' sum, which is the number of judged episodes.
    """
    share = weight.flatten(1).mean(1).mean()
    return painting_loss(painting, truth, hidden, weight) * share


def _pixels(hidden: Tensor, labels: Tensor) -> Tensor:
    """Hidden patches of the canvas → hidden pixels of the query half, (B, H, W)."""
    lower = hidden[:, hidden.shape[1] // 2 :]
    scale = (labels.shape[1] // lower.shape[1], labels.shape[2] // lower.shape[2])
    return lower.repeat_interleave(scale[0], 1).repeat_interleave(scale[1], 2)
