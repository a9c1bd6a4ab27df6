"""Validation while training: mean IoU on held-out sets, in batches, at the model's own size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from incontext.data.pictures import IGNORE, PictureSet
from incontext.model import Model


@dataclass(frozen=True)
class BinaryEpisode:
    """One class against the rest: pictures by number, the query last."""

    index: int
    pictures: list[int]


def binary_episodes(
    holders: dict[int, list[int]], examples: int, count: int, seed: int = 0
) -> Iterator[BinaryEpisode]:
    """Each class in turn, pictures that hold it drawn without replacement.

    Classes with too few pictures are left out.
    """
    rng = np.random.default_rng(seed)
    classes = sorted(c for c, held in holders.items() if len(held) > examples)
    for number in range(count if classes else 0):
        index = classes[number % len(classes)]
        chosen = rng.choice(holders[index], examples + 1, replace=False)
        yield BinaryEpisode(index, [int(i) for i in chosen])


@dataclass(frozen=True)
class Judged:
    """One validation episode: pictures as shown, what is true, what was painted."""

    pictures: Tensor  # (V, 3, H, W) in 0–1, the query last
    labels: Tensor  # (V, H, W) uint8: 1 the class, 255 ignore
    painting: Tensor  # (3, H, W) in 0–1


class Validation:
    """Seeded episodes of several sets, one class in white on black.

    Args:
        sets: all pictures of one size, the one that the model is to see.
        examples: shown in each episode.
        episodes: of each set.
    """

    def __init__(self, sets: Sequence[PictureSet], examples: int = 1, episodes: int = 24) -> None:
        self.sets, self.examples = list(sets), examples
        self.drawn = [list(binary_episodes(s.holders, examples, episodes)) for s in self.sets]

    @torch.no_grad()
    def paint(
        self, model: Model, data: PictureSet, episodes: list[BinaryEpisode]
    ) -> Iterator[tuple[BinaryEpisode, Judged]]:
        """What the model paints in each episode, one after the other."""
        device = next(model.parameters()).device
        mean, std = (torch.tensor(x).view(3, 1, 1) for x in (model.config.mean, model.config.std))
        for episode in episodes:
            pictures = data.images[episode.pictures].float() / 255
            stored = data.labels[episode.pictures]
            labels = (stored == episode.index).to(torch.uint8)
            labels[stored == IGNORE] = IGNORE
            images = ((pictures - mean) / std).to(device)
            white = (labels[:-1, None] == 1).float().expand(-1, 3, -1, -1)
            targets = ((white - mean) / std).to(device)
            semantic = torch.ones(1, dtype=torch.bool, device=device)
            colors = ((1 - mean) / std).view(1, 1, 3).to(device)
            encoded = model.encode(images[None, :-1], targets[None], semantic, colors=colors)
            painting = model.paint(images[-1:], encoded)[0].float().cpu()
            yield episode, Judged(pictures, labels, (painting * std + mean).clamp(0, 1))

    def score(self, model: Model) -> dict[str, float]:
        """Mean IoU by set, in percent: intersections and unions summed by class, then averaged.

        A pixel is read as the class where its painting is nearer to white than to black. A set
        without enough pictures of any class is left out; sets of one name are numbered.
        """
        training = model.training
        model.eval()
        scores = dict[str, float]()
        for data, drawn in zip(self.sets, self.drawn, strict=True):
            both, either = dict[int, float](), dict[int, float]()
            for episode, judged in self.paint(model, data, drawn):
                truth = judged.labels[-1]
                valid = truth != IGNORE
                found = (judged.painting.mean(0) > 0.5) & valid
                there = (truth == 1) & valid
                index = episode.index
                both[index] = both.get(index, 0.0) + float((found & there).sum())
                either[index] = either.get(index, 0.0) + float((found | there).sum())
            if both:
                name = f"{data.name} {len(scores) + 1}" if data.name in scores else data.name
                scores[name] = 100 * float(np.mean([both[c] / max(either[c], 1.0) for c in both]))
        model.train(training)
        return scores

    def samples(self, model: Model, count: int = 8) -> list[Judged]:
        """The first episode of the first `count` sets, painted."""
        shown = []
        for data, drawn in zip(self.sets[:count], self.drawn, strict=False):
            for _, judged in self.paint(model, data, drawn[:1]):
                shown.append(judged)
        return shown
