"""Clips: videos with labels on every frame, drawn over real textures or read from datasets.

Drawn ones: objects with parts of photographs on them move over another photograph, change their
form and size, pass behind a bar, leave the picture and return. The photographs ship with
scikit-image. Datasets: `eval.datasets`; here only the sets of `docs/training.md`.
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

from incontext.data.pictures import read_metadata, read_pairs
from incontext.errors import InputError

Array = np.ndarray[Any, Any]
PHOTOGRAPHS = (
    "astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel",
    "hubble_deep_field", "immunohistochemistry", "retina", "rocket",
)  # fmt: skip
SIZE = (160, 208)  # height and width of drawn clips
STORIES = ("moves", "deforms", "passes behind", "leaves")


@dataclass(frozen=True)
class Clip:
    """Frames of a video and what is known of them.

    `given`: labels of the frames in which objects come up; `truth`: of all frames, where there
    are any.
    """

    name: str
    frames: Sequence[Any]
    given: dict[int, Any] = field(repr=False)
    truth: Array | None = field(default=None, repr=False)
    reading: dict[str, Any] = field(default_factory=dict)


def drawn(seed: int, count: int = 30, objects: int | None = None) -> Clip:
    """A clip of 1 to 3 objects; what happens to the first is in turn one of `STORIES`."""
    rng = np.random.default_rng((seed, 7))
    story = STORIES[seed % len(STORIES)]
    number = objects or int(rng.integers(1, 4))
    names = rng.permutation(len(PHOTOGRAPHS))[: number + 2]
    ground = _texture(rng, int(names[0]), (SIZE[0] + 40, SIZE[1] + 40))
    things = [
        _Thing.of(rng, _texture(rng, int(n), (180, 180)), i, number, story if i == 0 else "moves")
        for i, n in enumerate(names[1 : number + 1])
    ]
    bar = _texture(rng, int(names[-1]), (SIZE[0], 30)) if story == "passes behind" else None
    light, phase = rng.uniform(0, 0.12), rng.uniform(0, 6.28)
    frames, truth = [], np.zeros((count, *SIZE), np.uint8)
    for t in range(count):
        at = t / max(1, count - 1)
        shift = np.round(20 + 18 * np.sin(6.28 * at + np.array([0, 1.6]))).astype(int)
        picture = ground[shift[0] : shift[0] + SIZE[0], shift[1] : shift[1] + SIZE[1]].astype(float)
        for index, thing in enumerate(things, 1):
            thing.draw(picture, truth[t], index, at)
        if bar is not None:
            left = round(10 + (SIZE[1] - 50) * at)
            picture[:, left : left + 30], truth[t][:, left : left + 30] = bar, 0
        picture = picture * (1 + light * np.sin(phase + 9 * at)) + rng.normal(0, 3, picture.shape)
        frames.append(np.clip(picture, 0, 255).astype(np.uint8))
    name = f"drawn-{seed}, {count} frames, {number} objects ({story})"
    return Clip(name, frames, {0: truth[0]}, truth)


@dataclass(frozen=True)
class _Thing:
    """An object: a part of a photograph within a closed curve, and the way it goes."""

    texture: Array
    start: Array  # (y, x)
    way: Array  # how far it goes
    radius: float
    waves: Array  # (k, 3): how strong, how it is turned, how fast it changes
    story: str

    @classmethod
    def of(
        cls, rng: np.random.Generator, texture: Array, place: int, places: int, story: str
    ) -> Any:
        start = np.array([rng.uniform(50, SIZE[0] - 50), SIZE[1] * (place + 0.5) / places])
        way = rng.uniform(15, 35, 2) * rng.choice([-1, 1], 2)
        if story == "leaves":  # over the nearer side, and back
            side = -1.0 if start[1] < SIZE[1] / 2 else 1.0
            way[1] = side * (SIZE[1] / 2 + 70)
        strength = 0.16 if story == "deforms" else 0.05
        waves = rng.uniform((0, 0, 2), (strength, 6.28, 7), (4, 3))
        return cls(texture, start, way, rng.uniform(18, 30), waves, story)

    def draw(self, picture: Array, labels: Array, index: int, at: float) -> None:
        """Draw it at a time in 0–1."""
        back = np.sin(np.pi * at) if self.story == "leaves" else np.sin(4 * at)
        center = self.start + self.way * np.array([np.sin(3 * at), back])
        radius = self.radius * (1 + 0.15 * np.sin(5 * at))
        y, x = np.mgrid[: SIZE[0], : SIZE[1]]
        y, x = y - center[0], x - center[1]
        angle, edge = np.arctan2(y, x), np.ones(SIZE)
        for k, (strength, turn, speed) in enumerate(self.waves, 2):
            edge += strength * np.cos(k * angle + turn + speed * at)
        inside = np.hypot(y, x) < radius * edge
        rows, columns = np.nonzero(inside)
        middle = np.array(self.texture.shape[:2]) // 2
        v = (rows - round(center[0]) + middle[0]).clip(0, self.texture.shape[0] - 1)
        u = (columns - round(center[1]) + middle[1]).clip(0, self.texture.shape[1] - 1)
        picture[inside], labels[inside] = self.texture[v, u], index


@cache
def _photograph(number: int) -> Array:
    picture = getattr(data, PHOTOGRAPHS[number])()
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, 2)


def _texture(rng: np.random.Generator, number: int, size: tuple[int, int]) -> Array:
    """A part of a photograph, scaled at random."""
    picture = _photograph(number)
    room = min(picture.shape[0] / size[0], picture.shape[1] / size[1])
    scale = rng.uniform(min(1.0, room), min(3.0, room))
    height, width = (min(s, round(n * scale)) for s, n in zip(picture.shape, size, strict=False))
    top, left = (int(rng.integers(0, s - n + 1)) for s, n in
                 zip(picture.shape, (height, width), strict=False))  # fmt: skip
    part = Image.fromarray(picture[top : top + height, left : left + width])
    return np.asarray(part.resize(size[::-1], Image.Resampling.BILINEAR))


def of_set(path: Path) -> Iterator[Clip]:
    """Clips of a set of kind video, NAME.tar + NAME.json."""
    groups: dict[str, list[str]] = {}
    for item in json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["items"]:
        groups.setdefault(item["group"], []).append(item["id"])
    if read_metadata(path).get("kind") != "video":
        raise InputError(f"{path}: not a set of clips")
    read = {name: (image, labels) for name, image, labels in read_pairs(path)}
    for name, ids in groups.items():
        truth = np.stack([read[i][1] for i in ids])
        first = next(n for n, labels in enumerate(truth) if ((labels > 0) & (labels < 255)).any())
        frames = [read[i][0] for i in ids][first:]
        yield Clip(name, frames, {0: truth[first]}, truth[first:], {"ignore": 255})


def ids_of(path: Path) -> Array:
    """Values of a label picture, (H, W)."""
    return np.asarray(Image.open(path))


@dataclass(frozen=True)
class VideoSet:
    """A dataset of clips: `clips(folder, split)` lists their names, and what reads each; `split` is
    the usual one."""

    name: str
    title: str
    layout: str
    pictures: str
    split: str
    clips: Callable[[Path, str], dict[str, Callable[[], Clip]]]
    published: tuple[tuple[str, str], ...] = ()
