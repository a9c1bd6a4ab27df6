"""Evidence: why a mask is where it is, as the places of the examples that voted for it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from incontext.errors import InputError
from incontext.images.image import resize_nearest
from incontext.inference.example import Example
from incontext.inference.example_encoder import ExampleEncoder
from incontext.inference.example_views import VIEWS, close_up, expand_views
from incontext.inference.segmentation import Segmentation
from incontext.labels.encodings import UNKNOWN
from incontext.labels.partial import shrink
from incontext.model import VotingModel
from incontext.model.votes.features import ImageFeatures

HEAT = np.array([255.0, 60.0, 0.0])  # RGB, where most votes come from


@dataclass(frozen=True, eq=False)
class Evidence:
    """Votes of the examples for an id, in its mask or at a pixel.

    Attributes:
        index: the id.
        votes: (N, h, w) float32, 0 or more: what each place of each example contributed; a place
            is a square of the example, of which h·w cover it. Their sum is `support`.
        examples: whose places these are.
    """

    index: int
    votes: np.ndarray[Any, np.dtype[np.float32]] = field(repr=False)
    examples: tuple[Example, ...] = field(repr=False)

    @property
    def support(self) -> float:
        """Share of all votes that went to the id, 0–1; the others went to all else."""
        return float(self.votes.sum())

    @property
    def shares(self) -> tuple[float, ...]:
        """Each example's share of the votes for the id; they sum to 1."""
        sums = self.votes.sum((1, 2), dtype=np.float64)
        return tuple((sums / max(float(sums.sum()), 1e-12)).tolist())

    def places(self, number: int, count: int = 5) -> list[tuple[int, int, float]]:
        """Return the places of an example with most votes: x, y of their centers, in pixels.

        The third is the place's share of all votes for the id, 0–1; most first, places without
        votes left out.
        """
        votes, image = self.votes[number], self.examples[number].image
        rows, columns = votes.shape
        order = votes.ravel().argsort()[::-1][:count].tolist()
        total = max(self.support, 1e-12)
        return [
            (
                int((at % columns + 0.5) * image.width / columns),
                int((at // columns + 0.5) * image.height / rows),
                float(votes.flat[at] / total),
            )
            for at in order if votes.flat[at] > 0
        ]  # fmt: skip

    def overlay(self, number: int) -> Image.Image:
        """Return an example darkened, and red the more a place voted for the id."""
        image = self.examples[number].image
        # The root: a few places have most of the votes, and the others should be seen too.
        heat = np.sqrt(self.votes[number] / max(float(self.votes.max()), 1e-12))
        strength = resize_nearest(heat, (image.height, image.width))[..., None]
        dark = 0.4 * np.asarray(image, np.float32)
        mixed = dark * (1 - strength) + (0.4 * dark + HEAT * 0.8) * strength
        return Image.fromarray(mixed.clip(0, 255).astype(np.uint8))


@torch.inference_mode()
def gather_evidence(
    encoder: ExampleEncoder,
    result: Segmentation,
    examples: Sequence[Example],
    index: int,
    ids: Sequence[int],
    at: tuple[int, int] | None,
    keep_ratio: float,
    views: bool,
) -> Evidence:
    """Gather the votes for an id in a result, see `Predictor.evidence`.

    Args:
        ids: of its pass.
        keep_ratio, views: with which the prompt was encoded, see `ExampleEncoder.encode`.
    """
    model = encoder.model
    if not isinstance(model, VotingModel):
        raise InputError(
            "evidence needs a checkpoint whose examples vote, such as incontext-votes; this one "
            "answers by attention through all its layers"
        )
    region = _region(result, index, at, encoder.size)
    all_views = expand_views(examples, views)
    maps = np.stack([shrink(example.labels.ids, encoder.size) for example in all_views])
    labels = torch.from_numpy(np.stack([maps == i for i in ids], 1)).to(encoder.device)
    valid = torch.from_numpy(maps != UNKNOWN).to(encoder.device)
    features = ImageFeatures.concat(
        [model.embed_images(encoder.normalize([e.image])) for e in all_views]
    )
    votes = model.attribute(
        model.embed_images(encoder.normalize([result.image])), features,
        labels[None].to(encoder.dtype), valid[None], keep_ratio,
        region.to(encoder.device, encoder.dtype), ids.index(index),
    )  # fmt: skip
    if views:
        votes = fold(votes, examples)
    return Evidence(index, votes.float().cpu().numpy(), tuple(examples))


def _region(
    result: Segmentation, index: int, at: tuple[int, int] | None, size: int
) -> torch.Tensor:
    """Return the weights of the model's pixels, (size, size): a mask, or a single one.

    Raises:
        InputError: a pixel outside the image, or a mask without pixels.
    """
    height, width = result.labels.shape
    if at is not None:
        x, y = at
        whole = isinstance(x, Integral) and isinstance(y, Integral)
        if not (whole and 0 <= x < width and 0 <= y < height):
            raise InputError(
                f"at={at!r} is no pixel of the image; accepted: 0 … {width - 1}, 0 … {height - 1}"
            )
        region = torch.zeros(size, size)
        region[y * size // height, x * size // width] = 1
        return region
    mask = result.mask(index)
    if not mask.any():
        raise InputError(f"id {index} has no mask here; pass a pixel, at=(x, y)")
    # The share of the mask in each of the model's pixels, so that the smallest one counts.
    image = Image.fromarray(mask.astype(np.float32)).resize((size, size), Image.Resampling.BOX)
    return torch.from_numpy(np.array(image)).clamp(min=0)


def fold(votes: Tensor, examples: Sequence[Example]) -> Tensor:
    """Sum votes (N·V, h, w) of views where they are in their examples: (N, h, w).

    N examples of V views each, h w rows and columns of a grid.
    """
    rows, columns = votes.shape[1:]
    maps = []
    for example, (whole, close, mirrored, mirrored_close) in zip(
        examples, votes.unflatten(0, (-1, VIEWS)), strict=True
    ):
        left, top, right, bottom = close_up(example)
        height, width = example.labels.ids.shape
        at = _places(top / height, bottom / height, rows)[:, None] * columns
        at = (at + _places(left / width, right / width, columns)).flatten().to(votes.device)
        total = (whole + mirrored.flip(1)).flatten()
        total.index_add_(0, at, (close + mirrored_close.flip(1)).flatten())
        maps.append(total.view(rows, columns))
    return torch.stack(maps)


def _places(start: float, end: float, count: int) -> Tensor:
    """Return in which of `count` cells the middles of as many between two shares lie."""
    middles = start + (torch.arange(count) + 0.5) / count * (end - start)
    return (middles * count).long()
