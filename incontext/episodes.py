"""Episodes: examples, a query and the true labels; how they are drawn, augmented and colored.

Letters: B episodes, V views of each (N examples, the query last), H W pixels, K classes.
"""

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from incontext.color import separated_colors
from incontext.errors import InputError
from incontext.image import read_image, resize_nearest
from incontext.scenes import draw_scenes

Ids = np.ndarray[Any, np.dtype[np.uint8]]

IGNORE = 255  # label of pixels that are neither judged nor shown as anything


@dataclass
class PictureSet:
    """Pictures with labels, read once and held at one square size.

    `images` (M, 3, S, S) uint8, `labels` (M, S, S) uint8, 0 = background, 255 = ignore.
    `kind` is semantic (ids mean the same in every picture), regions (ids mean nothing across
    pictures) or video (frames of clips in order).
    """

    name: str
    kind: str
    images: Tensor
    labels: Tensor
    holders: dict[int, list[int]] = field(default_factory=dict)  # class → pictures that hold it

    def __post_init__(self) -> None:
        for index, labels in enumerate(self.labels.numpy()):
            ids, counts = np.unique(labels, return_counts=True)
            for value, count in zip(ids.tolist(), counts.tolist(), strict=True):
                if value not in (0, IGNORE) and count >= 12:  # smaller ones teach nothing
                    self.holders.setdefault(value, []).append(index)


def read_pairs(source: Path) -> Iterator[tuple[str, Image.Image, Ids]]:
    """(id, RGB picture, labels (H, W) uint8) of a set: `NAME.tar`, or a folder, with images/ and
    labels/.

    Raises:
        InputError: a folder without the two or without a single pair, damaged files, labels that
            are no 8-bit ids of their picture's size.
    """
    pairs: dict[str, dict[str, bytes]] = {}
    if source.is_file():
        with tarfile.open(source) as tar:
            for member in tar:
                path = Path(member.name)
                handle = tar.extractfile(member)
                if handle and path.parent.name in ("images", "labels"):
                    pairs.setdefault(path.stem, {})[path.parent.name] = handle.read()
    else:
        for part in ("images", "labels"):
            for path in sorted((source / part).glob("*")):
                pairs.setdefault(path.stem, {})[part] = path.read_bytes()
    whole = {name: pair for name, pair in sorted(pairs.items()) if len(pair) == 2}
    if not whole:
        raise InputError(f"{source}: no picture under images/ has labels of its name in labels/")
    for name, pair in whole.items():
        try:
            stored, labels = (Image.open(io.BytesIO(pair[part])) for part in ("images", "labels"))
            image, ids = read_image(stored), np.asarray(labels)
        except (OSError, SyntaxError) as error:
            raise InputError(f"{source}: {name}: damaged picture or labels ({error})") from None
        if ids.ndim != 2 or ids.dtype not in (np.uint8, bool) or ids.shape != image.size[::-1]:
            raise InputError(
                f"{source}: labels of {name} are {ids.dtype} {ids.shape}; accepted: 8-bit ids of "
                f"the picture's height and width, {image.size[::-1]}"
            )
        yield name, image, ids.astype(np.uint8)


def load_set(source: Path, size: int) -> PictureSet:
    """Read a set and scale every picture to size × size (bicubic; labels nearest)."""
    described = source.with_suffix(".json")
    about = json.loads(described.read_text()) if described.is_file() else {}
    images, labels = [], []
    for _, image, ids in read_pairs(source):
        small = image.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=3.0)
        images.append(torch.from_numpy(np.array(small)).permute(2, 0, 1))
        labels.append(torch.from_numpy(resize_nearest(ids, (size, size))))
    kind = about.get("kind", "semantic")
    return PictureSet(source.stem, kind, torch.stack(images), torch.stack(labels))


@dataclass(frozen=True)
class Batch:
    """Episodes of equal shape, ready for the model but for normalization."""

    images: Tensor  # (B, V, 3, H, W) in 0–1
    labels: Tensor  # (B, V, H, W) uint8: 0 background, 1 … K, 255 ignore
    colors: Tensor  # (B, K + 1, 3) in 0–1; color of the background first
    semantic: Tensor  # (B,) bool, the kind that the model is told

    def targets(self) -> Tensor:
        """Labels painted with the episode's colors: (B, V, 3, H, W) in 0–1; ignore is black."""
        shown = torch.where(self.labels == IGNORE, 0, self.labels).long()
        painted = torch.stack([c[s] for c, s in zip(self.colors, shown, strict=True)])
        return painted.permute(0, 1, 4, 2, 3)

    def asked(self) -> Tensor:
        """Which classes an example shows: (B, K + 1) bool."""
        classes = torch.arange(self.colors.shape[1], device=self.labels.device)
        shown = self.labels[:, :-1].flatten(1)
        return (shown[:, None] == classes[:, None]).any(2)

    def to(self, device: torch.device) -> "Batch":
        """The same episodes on a device."""
        parts = (self.images, self.labels, self.colors, self.semantic)
        return Batch(*(part.to(device) for part in parts))


@dataclass(frozen=True)
class Mixture:
    """Which episodes, how often. Weights are relative; sets that are not named weigh `other`."""

    weights: dict[str, float] = field(default_factory=dict)
    other: float = 1.0
    scenes: float = 0.15  # share of procedural scenes
    two_views: float = 0.25  # share of episodes from two views of one picture
    absent: float = 0.06  # share whose query shows another picture, likely without the class
    several: float = 0.3  # share with more than one class
    classes: int = 4  # at most so many
    min_area: float = 0.3  # smallest crop, share of the picture


# Place in the batch, set, its pictures (query last), classes that are asked for.
Drawn = tuple[int, PictureSet, list[int], list[int]]


class Sampler:
    """Draws batches of episodes from sets of pictures.

    Args:
        sets: at least one, unless all episodes are procedural scenes.
        size: height and width of the views in pixels, multiple of the model's patch.
        seed: two samplers with the same seed and calls draw the same episodes.
    """

    def __init__(
        self, sets: Sequence[PictureSet], size: int, mixture: Mixture, seed: int = 0
    ) -> None:
        self.sets, self.size, self.mixture = list(sets), size, mixture
        self.rng = np.random.default_rng(seed)
        self.torch_rng = torch.Generator().manual_seed(seed)
        weights = [mixture.weights.get(s.name, mixture.other) for s in self.sets]
        self.weights = np.array(weights) / sum(weights) if weights else np.zeros(0)

    def state(self) -> dict[str, Any]:
        """All that `restore` needs to go on with the very same episodes."""
        return {"numpy": self.rng.bit_generator.state, "torch": self.torch_rng.get_state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.rng.bit_generator.state = state["numpy"]
        self.torch_rng.set_state(state["torch"])

    def batch(self, episodes: int, examples: int) -> Batch:
        """Draw `episodes` episodes of `examples` examples and one query each."""
        views = examples + 1
        most = self.mixture.classes
        images = torch.empty(episodes, views, 3, self.size, self.size)
        labels = torch.empty(episodes, views, self.size, self.size, dtype=torch.uint8)
        drawn: list[Drawn] = []
        for index in range(episodes):
            if not self.sets or self.rng.random() < self.mixture.scenes:
                count = self._class_count()
                absent = bool(self.rng.random() < self.mixture.absent)
                images[index], labels[index] = draw_scenes(
                    self.torch_rng, views, self.size, count, absent
                )
                continue
            chosen = self.sets[self.rng.choice(len(self.sets), p=self.weights)]
            pictures, classes = self._choose(chosen, views)
            drawn.append((index, chosen, pictures, classes))
        if drawn:
            self._render(drawn, images, labels)
        self._drop_unshown(labels)
        colors = np.stack([separated_colors(self.rng, most) for _ in range(episodes)])
        semantic = torch.rand(episodes, generator=self.torch_rng) < 0.5
        return Batch(images, labels, torch.from_numpy(colors).float(), semantic)

    def _class_count(self) -> int:
        if self.rng.random() >= self.mixture.several:
            return 1
        return int(self.rng.integers(2, self.mixture.classes + 1))

    def _choose(self, chosen: PictureSet, views: int) -> tuple[list[int], list[int]]:
        """Pictures (query last) and the classes that are asked for."""
        rng = self.rng
        classes = list(chosen.holders)
        wanted = int(rng.choice(classes))
        holders = chosen.holders[wanted]
        pictures = [int(i) for i in rng.choice(holders, views)]
        if chosen.kind == "regions" or rng.random() < self.mixture.two_views or len(holders) < 2:
            pictures = pictures[:1] * views
        elif rng.random() < self.mixture.absent:
            pictures[-1] = int(rng.integers(len(chosen.images)))
        asked = [wanted]
        # What is asked beside must be shown: taken from an example, not from the query.
        beside = np.unique(chosen.labels[pictures[0]]).tolist()
        beside = [c for c in beside if c != wanted and c in chosen.holders]
        more = self._class_count() - 1
        if more and beside:
            asked += [int(c) for c in rng.permutation(beside)[:more]]
        return pictures, asked

    def _render(
        self,
        drawn: list[Drawn],
        images: Tensor,
        labels: Tensor,
    ) -> None:
        """Crop, turn, flip and recolor the chosen pictures into their places of the batch."""
        views = images.shape[1]
        sources, source_labels, thetas = [], [], []
        for _, chosen, pictures, classes in drawn:
            mapped = np.zeros(256, np.uint8)
            mapped[IGNORE] = IGNORE
            mapped[classes] = np.arange(1, len(classes) + 1)
            for number in pictures:
                small = mapped[chosen.labels[number].numpy()]
                sources.append(chosen.images[number])
                source_labels.append(torch.from_numpy(small))
                thetas.append(self._view(small))
        theta = torch.tensor(np.stack(thetas), dtype=torch.float32)
        shape = [len(theta), 1, self.size, self.size]
        grid = F.affine_grid(theta, shape, align_corners=False)
        picture = torch.stack(sources).float() / 255
        picture = F.grid_sample(picture, grid, "bilinear", "reflection", align_corners=False)
        label = torch.stack(source_labels)[:, None].float()
        label = F.grid_sample(label, grid, "nearest", "reflection", align_corners=False)
        picture = self._jitter(picture.unflatten(0, (-1, views)))
        places = [index for index, *_ in drawn]
        images[places] = picture
        labels[places] = label[:, 0].round().to(torch.uint8).unflatten(0, (-1, views))

    def _view(self, labels: np.ndarray) -> np.ndarray:
        """A random crop, usually one that keeps some asked pixel, as an affine map (2, 3)."""
        rng = self.rng
        scale = np.sqrt(rng.uniform(self.mixture.min_area, 1.0)) if rng.random() < 0.8 else 1.0
        aspect = np.exp(rng.uniform(-0.2, 0.2))
        half = np.minimum(1.0, np.array([scale * aspect, scale / aspect]))  # x, y
        center = rng.uniform(-1, 1, 2) * (1 - half)
        if rng.random() < 0.7:
            at = np.flatnonzero((labels > 0) & (labels != IGNORE))
            if len(at):
                row, column = divmod(int(at[rng.integers(len(at))]), labels.shape[1])
                point = (np.array([column, row]) + 0.5) / len(labels) * 2 - 1
                low, high = np.maximum(-1 + half, point - half), np.minimum(1 - half, point + half)
                center = low + rng.random(2) * np.maximum(high - low, 0)
        angle = rng.normal(0, 0.15) if rng.random() < 0.3 else 0.0
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        flip = np.array([-1.0 if rng.random() < 0.5 else 1.0, -1.0 if rng.random() < 0.1 else 1.0])
        return np.concatenate([turn * half[:, None] * flip[None], center[:, None]], 1)

    def _jitter(self, images: Tensor) -> Tensor:
        """Brightness, contrast, saturation and channel gains; mild within an episode (B, V, …)."""
        batch, views = images.shape[:2]

        def draw(spread: float, *shape: int) -> Tensor:
            return torch.randn(*shape, generator=self.torch_rng) * spread

        gain = 1 + draw(0.12, batch, 1, 3, 1, 1) + draw(0.06, batch, views, 3, 1, 1)
        shift = draw(0.06, batch, 1, 1, 1, 1) + draw(0.05, batch, views, 1, 1, 1)
        contrast = (draw(0.15, batch, 1, 1, 1, 1) + draw(0.12, batch, views, 1, 1, 1)).exp()
        saturation = draw(0.25, batch, 1, 1, 1, 1).exp()
        mean = images.mean((2, 3, 4), keepdim=True)
        images = (images - mean) * contrast + mean
        gray = images.mean(2, keepdim=True)
        return ((gray + (images - gray) * saturation) * gain + shift).clamp(0, 1)

    def _drop_unshown(self, labels: Tensor) -> None:
        """Classes that no example shows become background in the query: they cannot be known."""
        for episode in labels:
            shown = torch.bincount(episode[:-1].flatten().long(), minlength=256) > 0
            shown[IGNORE] = True
            query = episode[-1]
            query[~shown[query.long()]] = 0
