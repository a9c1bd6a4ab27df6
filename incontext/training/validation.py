"""Validation while training: mean IoU on held-out sets, in batches, at the model's own size.

Letters: V images of an episode (the query last), H W pixels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from incontext.data.pictures import IGNORE_INDEX, PictureSet
from incontext.images.normalizer import Normalizer
from incontext.model import Model


@dataclass(frozen=True)
class BinaryEpisode:
    """One class against the rest: images of a set by index, the query last."""

    index: int
    images: list[int]


def binary_episodes(
    images_by_class: dict[int, list[int]], examples: int, count: int, seed: int = 0
) -> Iterator[BinaryEpisode]:
    """Draw episodes of each class in turn, of images that show it, without replacement.

    Classes with too few images are left out.
    """
    rng = np.random.default_rng(seed)
    classes = sorted(c for c, images in images_by_class.items() if len(images) > examples)
    for number in range(count if classes else 0):
        index = classes[number % len(classes)]
        images = rng.choice(images_by_class[index], examples + 1, replace=False)
        yield BinaryEpisode(index, [int(i) for i in images])


@dataclass(frozen=True)
class ValidationSample:
    """One validation episode: its images, what is true, what was painted."""

    images: Tensor  # (V, 3, H, W) in 0–1
    labels: Tensor  # (V, H, W) uint8: 1 the class, 255 ignore
    painting: Tensor  # (3, H, W) in 0–1, of the query


class Validation:
    """Seeded episodes of several sets, one class in white on black.

    Args:
        sets: all images of one size, the model's.
        examples: in each episode.
        episodes: of each set.
    """

    def __init__(self, sets: Sequence[PictureSet], examples: int = 1, episodes: int = 24) -> None:
        self.sets, self.examples = list(sets), examples
        self.episodes = [
            list(binary_episodes(s.images_by_class, examples, episodes)) for s in self.sets
        ]

    @torch.no_grad()
    def paint(
        self, model: Model, data: PictureSet, episodes: list[BinaryEpisode]
    ) -> Iterator[tuple[BinaryEpisode, ValidationSample]]:
        """Paint the query of each episode, one after the other."""
        device = next(model.parameters()).device
        normalizer = Normalizer(model.config.mean, model.config.std)
        white = normalizer.colors(torch.ones(1, 1, 3)).to(device)
        for episode in episodes:
            images = data.images[episode.images].float() / 255
            ids = data.labels[episode.images]
            labels = (ids == episode.index).to(torch.uint8)
            labels[ids == IGNORE_INDEX] = IGNORE_INDEX
            model_images = normalizer(images).to(device)
            masks = (labels[:-1, None] == 1).float().expand(-1, 3, -1, -1)
            targets = normalizer(masks).to(device)
            semantic = torch.ones(1, dtype=torch.bool, device=device)
            encoded_prompt = model.encode(
                model_images[None, :-1], targets[None], semantic, colors=white
            )
            painting = model.paint(model_images[-1:], encoded_prompt)[0].float().cpu()
            rgb = normalizer.invert(painting).clamp(0, 1)
            yield episode, ValidationSample(images, labels, rgb)

    def score(self, model: Model) -> dict[str, float]:
        """Return the mean IoU by set, in percent.

        Intersections and unions are summed by class, then averaged. A pixel is of the class if its
        painting is nearer to white than to black. A set without enough images of any class is left
        out; sets of one name are numbered.
        """
        training = model.training
        model.eval()
        scores = dict[str, float]()
        for data, episodes in zip(self.sets, self.episodes, strict=True):
            intersections, unions = dict[int, float](), dict[int, float]()
            for episode, sample in self.paint(model, data, episodes):
                labels, index = sample.labels[-1], episode.index
                valid_mask = labels != IGNORE_INDEX
                prediction = (sample.painting.mean(0) > 0.5) & valid_mask
                truth = (labels == 1) & valid_mask
                intersection = float((prediction & truth).sum())
                intersections[index] = intersections.get(index, 0.0) + intersection
                unions[index] = unions.get(index, 0.0) + float((prediction | truth).sum())
            if unions:
                name = f"{data.name} {len(scores) + 1}" if data.name in scores else data.name
                ratios = [intersections[c] / max(unions[c], 1.0) for c in unions]
                scores[name] = 100 * float(np.mean(ratios))
        model.train(training)
        return scores

    def samples(self, model: Model, count: int = 8) -> list[ValidationSample]:
        """Paint the first episode of the first `count` sets."""
        return [
            sample
            for data, episodes in zip(self.sets[:count], self.episodes, strict=False)
            for _, sample in self.paint(model, data, episodes[:1])
        ]
