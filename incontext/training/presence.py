"""Teach a voting model when an id is not in the query, while all else is frozen."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from incontext.data.pictures import IGNORE_INDEX, PictureSet
from incontext.errors import InputError
from incontext.images.normalizer import Normalizer
from incontext.model import VotingModel
from incontext.model.votes.features import ImageFeatures

IMAGES = 32  # of a set, drawn at random, which are its examples and queries
VISITORS = 4  # images of each set that are queries for sets of other domains
EXAMPLES = (1, 1, 1, 4)  # numbers of them, drawn at random
MIN_SHARE = 0.001  # of a picture's pixels, from which a class counts as shown
WIDTH = 32  # of the head's hidden layer
STEPS, RATE, DECAY, DROPOUT = 400, 0.01, 1.0, 0.3  # of its training, on all rows at once
PRIOR = 0.8  # share of queries that show the object, which presence takes for granted
LOGITS = torch.arange(-10, 10.05, 0.1)  # to which those of pixels are rounded
BINS = len(LOGITS)


class Rows(NamedTuple):
    """What is to be learned from R queries."""

    evidence: Tensor  # (R, E)
    present: Tensor  # (R,) bool, whether the query shows the object
    sets: Tensor  # (R,) number of the examples' set
    pixels: Tensor  # (R, 2, BINS), number of pixels at each logit: all, and the object's


@dataclass(frozen=True)
class _Images:
    """Some images of a set, with features."""

    data: PictureSet
    features: list[ImageFeatures]
    by_class: dict[int, list[int]]

    def query(self, number: int) -> "_Query":
        return _Query(self.data, self.features[number], self.data.labels[number])


class _Query(NamedTuple):
    data: PictureSet
    features: ImageFeatures
    labels: Tensor  # (H, W)


@torch.inference_mode()
def collect_rows(
    model: VotingModel,
    sets: Sequence[PictureSet],
    episodes: int,
    *,
    seed: int = 0,
    on_progress: Callable[[int], object] = lambda count: None,
) -> Rows:
    """Gather what is to be learned from queries with and without the object.

    Raises:
        InputError: no set has two images of a class.
    """
    rng = np.random.default_rng(seed)
    normalizer = Normalizer(model.config.mean, model.config.std)
    # Features are large: of other domains a few images stay in memory, of one set more.
    visitors = [_embed(model, normalizer, data, VISITORS, rng) for data in sets]
    evidence, present, numbers, pixels = [], [], [], []
    for number, data in enumerate(sets):
        source = _embed(model, normalizer, data, IMAGES, rng)
        others = [x for x in visitors if x.data.domain != data.domain and x.data.name != data.name]
        for query, examples, index in _draw(source, others, episodes, rng):
            logits, row = _answer(model, source, examples, index, query.features)
            shows = query.data is source.data and bool((query.labels == index).any())
            truth = (query.labels == index) & shows
            evidence.append(row)
            present.append(shows)
            numbers.append(number)
            pixels.append(count_pixels(logits, truth, query.labels != IGNORE_INDEX))
            on_progress(1)
    if not evidence:
        raise InputError("no set has two images of one class to learn from")
    return Rows(
        torch.stack(evidence).clone(), torch.tensor(present), torch.tensor(numbers),
        torch.stack(pixels),
    )  # fmt: skip


def count_pixels(logits: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Count valid pixels, and the object's among them, at each of `LOGITS`: (2, BINS).

    `logits` (H, W), `truth` and `valid` (H, W) bool.
    """
    number = ((logits.clamp(-10, 10) + 10) * 10).round().long()
    counts = [torch.bincount(number[mask], minlength=BINS) for mask in (valid, valid & truth)]
    return torch.stack(counts).float()


def fit_head(model: VotingModel, rows: Rows, seed: int = 0) -> float:
    """Fit the model's presence head to rows; every set counts alike, `PRIOR` of it present.

    Returns:
        The mean binary cross-entropy at the end, without dropout.
    """
    head = model.presence
    assert head is not None
    torch.manual_seed(seed)
    head.mean.copy_(rows.evidence.mean(0))
    head.spread.copy_(rows.evidence.std(0).clamp(min=1e-3))
    last = head.body[-1]
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        last.bias.fill_(math.log(PRIOR / (1 - PRIOR)))  # the answer without evidence
    group = rows.sets * 2 + rows.present
    share = torch.where(rows.present, PRIOR, 1 - PRIOR)
    weight = share / torch.bincount(group)[group]
    weight = weight / weight.sum()
    weights, biases = ([p for p in head.parameters() if (p.dim() > 1) == w] for w in (True, False))
    groups: list[dict[str, Any]] = [{"params": weights}, {"params": biases, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    truth = rows.present.float()
    head.requires_grad_(True)
    for _ in range(STEPS):
        # Dropping evidence to the mean keeps the head from trusting any single piece of it.
        kept = F.dropout(torch.ones_like(rows.evidence), DROPOUT) > 0
        logits = head(torch.where(kept, rows.evidence, head.mean))
        loss = F.binary_cross_entropy_with_logits(logits, truth, weight, reduction="sum")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        logits = head(rows.evidence)
        loss = F.binary_cross_entropy_with_logits(logits, truth, weight, reduction="sum")
    return float(loss)


def _embed(
    model: VotingModel, normalizer: Normalizer, data: PictureSet, count: int,
    rng: np.random.Generator,
) -> _Images:  # fmt: skip
    """Embed `count` of a set's images, if it has as many."""
    some = data.subset(rng.permutation(len(data))[:count].tolist())
    features = [model.embed_images(normalizer(image[None] / 255)) for image in some.images]
    minimum = MIN_SHARE * some.labels[0].numel()
    by_class = {
        index: [i for i in images if (some.labels[i] == index).sum() >= minimum]
        for index, images in some.images_by_class.items()
    }
    return _Images(some, features, {c: images for c, images in by_class.items() if len(images) > 1})


def _draw(
    source: _Images, others: Sequence[_Images], episodes: int, rng: np.random.Generator
) -> Iterator[tuple[_Query, list[int], int]]:
    """Draw query, numbers of the examples, and class."""
    for _ in range(episodes if source.by_class else 0):
        index = int(rng.choice(list(source.by_class)))
        order = rng.permutation(source.by_class[index]).tolist()
        examples = order[1 : 1 + int(rng.choice(EXAMPLES))]
        lacking = [i for i, ids in enumerate(source.data.labels) if not (ids == index).any()]
        sort = rng.random()
        if sort < 0.25 and lacking:
            yield source.query(int(rng.choice(lacking))), examples, index
        elif sort < 0.5 and others:
            other = others[int(rng.integers(len(others)))]
            yield other.query(int(rng.integers(len(other.features)))), examples, index
        else:
            yield source.query(order[0]), examples, index


def _answer(
    model: VotingModel, source: _Images, examples: Sequence[int], index: int, query: ImageFeatures
) -> tuple[Tensor, Tensor]:
    """Return logits (H, W) and evidence (E,) for one class in one query."""
    labels = source.data.labels[list(examples)]
    voters = model.build_voters(
        ImageFeatures.concat([source.features[i] for i in examples]),
        (labels == index)[None, :, None].float(), (labels != IGNORE_INDEX)[None],
        min(1.0, model.default_thin_to / len(examples)),
    )  # fmt: skip
    logits, evidence = model.gather_evidence(query, voters)
    return logits[0, 0], evidence[0, 0]
