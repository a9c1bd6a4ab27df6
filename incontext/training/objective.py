"""The training objective: which patches are hidden, and what a painting of the episodes costs.

Every term is an average over episodes of what each episode costs, so that a batch split over
processes or micro-batches gives the very same gradient.

Letters: B episodes or queries, V views of an episode, K classes or ids, H W pixels, h w patches.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Generator, Tensor

from incontext.data.episodes import Batch
from incontext.data.pictures import IGNORE_INDEX
from incontext.images.normalizer import Normalizer
from incontext.model import Model, VotingModel, painting_loss
from incontext.model.encoded_prompt import EncodedPrompt
from incontext.model.votes.pairs import ids_of_other_views
from incontext.model.votes.voters import Voters

SMOOTHING = 20.0  # pixels in Dice's fraction, so that tiny objects do not dominate the loss


@dataclass(frozen=True)
class Weights:
    """How much each term counts, relative to the painting's own loss."""

    overlap: float = 0.5  # Dice of the labels read back
    copied: float = 0.3  # the copy path's own colors


def query_half(batch: int, rows: int, columns: int) -> Tensor:
    """Hide the query's half of canvases: (batch, 2·rows, columns) bool, True = paint."""
    hidden = torch.zeros(batch, 2 * rows, columns, dtype=torch.bool)
    hidden[:, rows:] = True
    return hidden


def random_blocks(rng: Generator, batch: int, rows: int, columns: int, share: float) -> Tensor:
    """Hide at least `share` of canvases in random blocks (BEiT's block-wise pattern).

    The share is rounded down to whole patches.

    Returns:
        (batch, 2·rows, columns) bool, True = paint. If nothing of a query half is hidden, all of
        it is: there would be nothing to learn from it.
    """
    hidden = torch.zeros(batch, 2 * rows, columns, dtype=torch.bool)
    count = int(share * hidden[0].numel())
    for canvas in hidden:
        while int(canvas.sum()) < count:
            height, width = (
                int(torch.randint(1, min(side, max(2, side // 2)) + 1, (1,), generator=rng))
                for side in (rows, columns)
            )
            top = int(torch.randint(0, 2 * rows - height + 1, (1,), generator=rng))
            left = int(torch.randint(0, columns - width + 1, (1,), generator=rng))
            canvas[top : top + height, left : left + width] = True
        if not canvas[rows:].any():
            canvas[rows:] = True
    return hidden


def objective(
    model: torch.nn.Module,
    normalizer: Normalizer,
    weights: Weights,
    batch: Batch,
    hidden: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the loss of a batch, and its parts by name.

    Args:
        normalizer: of the model's RGB.
        hidden: (B, 2h, w) bool over the canvas, True = paint; None hides the whole query half.
    """
    images, targets = normalizer(batch.images), normalizer(batch.targets())
    truth, labels = targets[:, -1], batch.labels[:, -1]
    painting, copied = model(
        images[:, -1], images[:, :-1], targets[:, :-1], batch.semantic, with_copied=True,
        hidden=hidden, query_targets=None if hidden is None else truth,
    )  # fmt: skip
    loss_mask = None if hidden is None else _query_pixels(hidden, labels)
    colors = normalizer.colors(batch.colors)
    return compute_loss(
        painting, copied, truth, labels, colors, batch.shown_classes(), weights, loss_mask
    )


def compute_loss(
    painting: Tensor,
    copied: Tensor | None,
    truth: Tensor,
    labels: Tensor,
    colors: Tensor,
    shown_classes: Tensor,
    weights: Weights,
    loss_mask: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the loss of paintings, and its parts by name.

    Args:
        painting, truth: (B, 3, H, W) normalized, what was painted and what should be.
        copied: (B, 3, H/4, W/4), the copy path's own colors, None without one.
        labels, colors, shown_classes, loss_mask: see `overlap_loss`.
    """
    painting = painting.float()
    weight = pixel_weights(labels, colors.shape[1] - 1, loss_mask)[:, None]
    all_patches = torch.ones(len(painting), 1, 1, dtype=torch.bool, device=painting.device)
    painted_loss = _mean_loss(painting, truth, all_patches, weight)
    overlap = overlap_loss(painting, labels, colors, shown_classes, loss_mask)
    loss = painted_loss + weights.overlap * overlap
    parts = {"painted": painted_loss.detach(), "overlap": overlap.detach()}
    if copied is not None:
        size = (copied.shape[-2], copied.shape[-1])
        small, small_weight = (F.adaptive_avg_pool2d(x, size) for x in (truth, weight))
        copied_loss = _mean_loss(copied.float(), small, all_patches, small_weight)
        loss = loss + weights.copied * copied_loss
        parts["copied"] = copied_loss.detach()
    return loss, {"loss": loss.detach(), **parts}


def pixel_weights(labels: Tensor, classes: int, loss_mask: Tensor | None = None) -> Tensor:
    """Weigh every query pixel, (B, H, W): classes by the root of their frequency.

    Plain averages let a small object vanish: painting everything black costs next to nothing.
    Ignored pixels, and those where `loss_mask` (B, H, W) is False, weigh 0. The mean over an
    episode is 1, or 0 if no pixel counts.
    """
    one_hot = F.one_hot(labels.clamp(max=classes).long(), classes + 1)
    one_hot = one_hot * _valid_mask(labels, loss_mask)[..., None]
    share = one_hot.float().mean((1, 2))  # (B, K + 1)
    weight = torch.where(share > 0, share.clamp(min=1e-3).rsqrt(), 0.0)
    weight = weight / (weight * share).sum(1, keepdim=True).clamp(min=1e-6)
    return (one_hot * weight[:, None, None]).sum(-1)


def overlap_loss(
    painting: Tensor,
    labels: Tensor,
    colors: Tensor,
    shown_classes: Tensor,
    loss_mask: Tensor | None = None,
) -> Tensor:
    """Compute the soft Dice of labels read back from a painting by color distance (V-Net, eq. 1).

    Args:
        painting: (B, 3, H, W) normalized.
        labels: (B, H, W), 0 … K, 255 = ignore.
        colors: (B, K + 1, 3) normalized.
        shown_classes: (B, K + 1) bool, classes that an example shows. One that the query lacks
            counts too: everything painted in its color is wrong.
        loss_mask: (B, H, W) bool, pixels that count; None: all.

    Returns:
        Mean over episodes of the mean over their shown classes; 0 for an episode without any.
    """
    distance = (painting[:, None] - colors[..., None, None]).abs().mean(2)  # (B, K + 1, H, W)
    classes = colors.shape[1]
    one_hot = F.one_hot(labels.clamp(max=classes - 1).long(), classes)
    valid_mask = _valid_mask(labels, loss_mask)[:, None]
    present = rearrange(one_hot, "b h w k -> b k h w") * valid_mask
    objects = shown_classes.clone()
    objects[:, 0] = False
    # Colors that the episode does not use must not take part; the background always does.
    absent = ~objects
    absent[:, 0] = False
    score = (-4.0 * distance).masked_fill(absent[..., None, None], -1e4).softmax(1)
    score = score * valid_mask
    intersection = (score * present).sum((2, 3))
    dice = 1 - (2 * intersection + 1) / (score.sum((2, 3)) + present.sum((2, 3)) + 1)
    return ((dice * objects).sum(1) / objects.sum(1).clamp(min=1)).mean()


def voting_objective(
    model: torch.nn.Module, normalizer: Normalizer, batch: Batch
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the loss of a batch for a voting model, and its parts by name.

    Every view is a query once.
    """
    count = int(torch.where(batch.labels == IGNORE_INDEX, 0, batch.labels).max())
    ids = torch.arange(1, max(1, count) + 1, device=batch.labels.device)
    labels = (batch.labels[:, :, None] == ids.view(-1, 1, 1)).to(batch.images.dtype)
    valid_mask = batch.labels != IGNORE_INDEX
    logits, guess = model(normalizer(batch.images), labels, valid_mask)
    shown_ids = ids_of_other_views(labels).flatten(0, 1)
    truth = labels.flatten(0, 1) * shown_ids[..., None, None]  # what no example shows is background
    return compute_voting_loss(logits, guess, truth, valid_mask.flatten(0, 1), shown_ids)


def compute_voting_loss(
    logits: Tensor, guess: Tensor, truth: Tensor, valid_mask: Tensor, shown_ids: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the loss of a voting model's logits, and its parts by name.

    Twice the cross-entropy of all ids and the background, plus a soft Dice of each id (V-Net,
    eq. 1), plus half the binary cross-entropy of the first guess.

    Args:
        logits: (B, K, H, W), of ids against the background's 0.
        guess: (B, K, h, w) logits.
        truth: (B, K, H, W) in 0–1, which pixels are of which id.
        valid_mask: (B, H, W) bool, pixels that count.
        shown_ids: (B, K) bool, ids that an example shows; queries without any do not count.
    """
    valid = valid_mask.to(truth.dtype)
    truth = truth * valid[:, None]
    background = torch.zeros_like(logits[:, :1], dtype=torch.float32)
    log_probabilities = torch.cat([background, logits.float()], 1).log_softmax(1)
    distribution = torch.cat([valid[:, None] - truth.sum(1, keepdim=True), truth], 1)
    pixels = valid.sum((1, 2)).clamp(min=1)
    entropy = -(log_probabilities * distribution).sum((1, 2, 3)) / pixels
    score = log_probabilities[:, 1:].exp() * valid[:, None]
    intersection, total = (score * truth).sum((2, 3)), (score + truth).sum((2, 3))
    dice = 1 - (2 * intersection + SMOOTHING) / (total + SMOOTHING)
    size = (guess.shape[-2], guess.shape[-1])
    coarse, coverage = (F.adaptive_avg_pool2d(x, size) for x in (truth, valid[:, None]))
    coarse = coarse / coverage.clamp(min=1e-6)  # of the pixels that count
    early = F.binary_cross_entropy_with_logits(guess.float(), coarse, reduction="none")
    early = (early * coverage).sum((2, 3)) / coverage.sum((2, 3)).clamp(min=1e-6)
    ids = shown_ids.sum(1).clamp(min=1)
    counts = shown_ids.any(1).float()
    terms = {
        "crossed": entropy, "overlap": (dice * shown_ids).sum(1) / ids,
        "early": (early * shown_ids).sum(1) / ids,
    }  # fmt: skip
    parts = {name: (term * counts).mean() for name, term in terms.items()}
    loss = 2 * parts["crossed"] + parts["overlap"] + 0.5 * parts["early"]
    return loss, {name: x.detach() for name, x in {"loss": loss, **parts}.items()}


def compute_prompt_loss(
    model: Model, encoded_prompt: EncodedPrompt, queries: Tensor, labels: Tensor, colors: Tensor
) -> Tensor:
    """Compute the loss of one prompt on queries with labels, as the model's kind requires.

    Args:
        queries: (B, 3, H, W) normalized.
        labels: (B, H, W), 0 … K, 255 = ignore.
        colors: (K + 1, 3) normalized, the background's first.
    """
    ids = len(colors) - 1
    if isinstance(model, VotingModel):
        assert isinstance(encoded_prompt.cache, Voters)
        logits, guess = model.vote(model.embed_images(queries), encoded_prompt.cache)
        numbers = torch.arange(1, ids + 1, device=labels.device).view(-1, 1, 1)
        truth = (labels[:, None] == numbers).to(queries.dtype)
        shown_ids = torch.ones(truth.shape[:2], dtype=torch.bool, device=labels.device)
        return compute_voting_loss(logits, guess, truth, labels != IGNORE_INDEX, shown_ids)[0]
    painting, copied = model.paint_and_copy(queries, encoded_prompt)
    indices = torch.where(labels == IGNORE_INDEX, 0, labels).long()
    truth = rearrange(colors[indices], "b h w c -> b c h w")
    shown_classes = torch.ones(1, ids + 1, dtype=torch.bool, device=labels.device)
    return compute_loss(painting, copied, truth, labels, colors[None], shown_classes, Weights())[0]


def _valid_mask(labels: Tensor, loss_mask: Tensor | None) -> Tensor:
    """Return the pixels that count, (B, H, W) bool: those not ignored, within the mask if any."""
    valid_mask = labels != IGNORE_INDEX
    return valid_mask if loss_mask is None else valid_mask & loss_mask


def _mean_loss(painting: Tensor, truth: Tensor, hidden: Tensor, weight: Tensor) -> Tensor:
    """Average `painting_loss` over episodes: weights have mean 1 in each, or 0 in empty ones.

    `painting_loss` divides by the weights' sum, which is the number of episodes that count.
    """
    share = weight.flatten(1).mean(1).mean()
    return painting_loss(painting, truth, hidden, weight) * share


def _query_pixels(hidden: Tensor, labels: Tensor) -> Tensor:
    """Return the hidden pixels of the query half, (B, H, W), of hidden patches of the canvas."""
    lower = hidden[:, hidden.shape[1] // 2 :]
    rows, columns = labels.shape[1] // lower.shape[1], labels.shape[2] // lower.shape[2]
    return repeat(lower, "b h w -> b (h r) (w c)", r=rows, c=columns)
