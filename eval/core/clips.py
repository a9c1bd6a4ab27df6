"""Video clips with labels on every frame, drawn over real textures or read from datasets.

Drawn clips: objects with parts of photographs on them move over another photograph, change their
shape and size, pass behind a bar, leave the frame and return. The photographs ship with
scikit-image. Readers of the field's datasets are in `eval.datasets`; this file reads only the sets
of `docs/training.md`.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage import data

from incontext.data.pictures import IGNORE_INDEX, read_metadata, read_pairs
from incontext.errors import InputError

Array = np.ndarray[Any, Any]
PHOTOGRAPHS = (
    "astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel",
    "hubble_deep_field", "immunohistochemistry", "retina", "rocket",
)  # fmt: skip
SIZE = (160, 208)  # height and width of drawn clips
STORIES = ("moves", "deforms", "passes behind", "leaves")


@dataclass(frozen=True)
class VideoClip:
    """Frames of a video and their labels.

    Attributes:
        given_labels: labels of the frames in which objects appear for the first time.
        truth: labels of all frames, (T, H, W), or None where the dataset keeps them to itself.
        label_options: how `VideoPredictor.track` is to read the given labels.
    """

    name: str
    frames: Sequence[Any]
    given_labels: dict[int, Any] = field(repr=False)
    truth: Array | None = field(default=None, repr=False)
    label_options: dict[str, Any] = field(default_factory=dict)


def draw_clip(seed: int, count: int = 30, objects: int | None = None) -> VideoClip:
    """Draw a clip of 1 to 3 objects; the seed picks one of `STORIES` for the first object."""
    rng = np.random.default_rng((seed, 7))
    story = STORIES[seed % len(STORIES)]
    number = objects or int(rng.integers(1, 4))
    names = rng.permutation(len(PHOTOGRAPHS))[: number + 2]
    ground = _texture(rng, int(names[0]), (SIZE[0] + 40, SIZE[1] + 40))
    sprites = [
        _Sprite.from_texture(
            rng, _texture(rng, int(n), (180, 180)), i, number, story if i == 0 else "moves"
        )
        for i, n in enumerate(names[1 : number + 1])
    ]
    bar = _texture(rng, int(names[-1]), (SIZE[0], 30)) if story == "passes behind" else None
    light, phase = rng.uniform(0, 0.12), rng.uniform(0, 6.28)
    frames, truth = [], np.zeros((count, *SIZE), np.uint8)
    for t in range(count):
        time = t / max(1, count - 1)  # 0–1
        shift = np.round(20 + 18 * np.sin(6.28 * time + np.array([0, 1.6]))).astype(int)
        image = ground[shift[0] : shift[0] + SIZE[0], shift[1] : shift[1] + SIZE[1]].astype(float)
        for index, sprite in enumerate(sprites, 1):
            sprite.draw(image, truth[t], index, time)
        if bar is not None:
            x = round(10 + (SIZE[1] - 50) * time)
            image[:, x : x + 30], truth[t][:, x : x + 30] = bar, 0
        image = image * (1 + light * np.sin(phase + 9 * time)) + rng.normal(0, 3, image.shape)
        frames.append(np.clip(image, 0, 255).astype(np.uint8))
    name = f"drawn-{seed}, {count} frames, {number} objects ({story})"
    return VideoClip(name, frames, {0: truth[0]}, truth)


@dataclass(frozen=True)
class _Sprite:
    """An object: a part of a photograph within a closed curve, and its path."""

    texture: Array
    start: Array  # (y, x)
    motion: Array  # (y, x), how far it goes
    radius: float
    waves: Array  # (k, 3): amplitude, phase and speed of the outline's harmonics
    story: str

    @classmethod
    def from_texture(
        cls, rng: np.random.Generator, texture: Array, place: int, places: int, story: str
    ) -> "_Sprite":
        """Draw the path and the outline of object number `place` of `places`."""
        start = np.array([rng.uniform(50, SIZE[0] - 50), SIZE[1] * (place + 0.5) / places])
        motion = rng.uniform(15, 35, 2) * rng.choice([-1, 1], 2)
        if story == "leaves":  # over the nearer side, and back
            side = -1.0 if start[1] < SIZE[1] / 2 else 1.0
            motion[1] = side * (SIZE[1] / 2 + 70)
        strength = 0.16 if story == "deforms" else 0.05
        waves = rng.uniform((0, 0, 2), (strength, 6.28, 7), (4, 3))
        return cls(texture, start, motion, rng.uniform(18, 30), waves, story)

    def draw(self, image: Array, labels: Array, index: int, time: float) -> None:
        """Draw the object at a time in 0–1 into `image` (H, W, 3) and `labels` (H, W)."""
        back = np.sin(np.pi * time) if self.story == "leaves" else np.sin(4 * time)
        center = self.start + self.motion * np.array([np.sin(3 * time), back])
        radius = self.radius * (1 + 0.15 * np.sin(5 * time))
        y, x = np.mgrid[: SIZE[0], : SIZE[1]]
        y, x = y - center[0], x - center[1]
        angle, edge = np.arctan2(y, x), np.ones(SIZE)
        for k, (strength, turn, speed) in enumerate(self.waves, 2):
            edge += strength * np.cos(k * angle + turn + speed * time)
        inside = np.hypot(y, x) < radius * edge
        rows, columns = np.nonzero(inside)
        middle = np.array(self.texture.shape[:2]) // 2
        v = (rows - round(center[0]) + middle[0]).clip(0, self.texture.shape[0] - 1)
        u = (columns - round(center[1]) + middle[1]).clip(0, self.texture.shape[1] - 1)
        image[inside], labels[inside] = self.texture[v, u], index


@cache
def _photograph(number: int) -> Array:
    image = getattr(data, PHOTOGRAPHS[number])()
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, 2)


def _texture(rng: np.random.Generator, number: int, size: tuple[int, int]) -> Array:
    """Crop a part of a photograph at a random place and scale; size is (height, width)."""
    photograph = _photograph(number)
    room = min(photograph.shape[0] / size[0], photograph.shape[1] / size[1])
    scale = rng.uniform(min(1.0, room), min(3.0, room))
    height, width = (min(s, round(n * scale)) for s, n in zip(photograph.shape, size, strict=False))
    y, x = (int(rng.integers(0, s - n + 1)) for s, n in
            zip(photograph.shape, (height, width), strict=False))  # fmt: skip
    part = Image.fromarray(photograph[y : y + height, x : x + width])
    return np.asarray(part.resize(size[::-1], Image.Resampling.BILINEAR))


def read_clips(path: Path) -> Iterator[VideoClip]:
    """Read the clips of a set of kind video, NAME.tar + NAME.json.

    Raises:
        InputError: a set of another kind.
    """
    groups: dict[str, list[str]] = {}
    for item in json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["items"]:
        groups.setdefault(item["group"], []).append(item["id"])
    if read_metadata(path).get("kind") != "video":
        raise InputError(f"{path}: not a set of clips")
    pairs = {name: (image, labels) for name, image, labels in read_pairs(path)}
    for name, ids in groups.items():
        truth = np.stack([pairs[i][1] for i in ids])
        objects = (truth > 0) & (truth != IGNORE_INDEX)
        first = int(objects.any((1, 2)).argmax())  # the first frame that shows an object
        frames = [pairs[i][0] for i in ids][first:]
        labels = {0: truth[first]}
        yield VideoClip(name, frames, labels, truth[first:], {"ignore": IGNORE_INDEX})


def read_ids(path: Path) -> Array:
    """Read the values of a label image, (H, W)."""
    return np.asarray(Image.open(path))


@dataclass(frozen=True)
class VideoSet:
    """A dataset of clips.

    Attributes:
        layout: the files that it is read from, for `--help`.
        image_source: name in `eval.core.domains.IMAGE_SOURCES`.
        split: the usual split of the evaluation.
        clips: `clips(folder, split)` returns a reader for each clip, by name.
        published: published figures, (method, J&F).
    """

    name: str
    title: str
    layout: str
    image_source: str
    split: str
    clips: Callable[[Path, str], dict[str, Callable[[], VideoClip]]]
    published: tuple[tuple[str, str], ...] = ()
