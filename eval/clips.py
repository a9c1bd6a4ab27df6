"""Clips: videos with labels on every frame, drawn over real textures or read from datasets.

Drawn ones: objects with parts of photographs on them move over another photograph, change their
form and size, pass behind a bar, leave the picture and return. The photographs ship with
scikit-image. Layouts read: DAVIS 2016/2017, YouTube-VOS, and the sets of `docs/training.md`.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage import data

from incontext.errors import InputError
from incontext.pictures import describe, read_pairs
from incontext.video import Added

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


def davis(folder: Path, year: str = "2017", split: str = "val") -> Iterator[Clip]:
    """DAVIS: JPEGImages/480p/NAME, Annotations/480p/NAME, ImageSets/YEAR/SPLIT.txt.

    2016 has one object: every id is 1.
    """
    listed = folder / "ImageSets" / year / f"{split}.txt"
    if not listed.is_file():
        raise InputError(f"{listed}: no such file; accepted: the folder of DAVIS, unpacked")
    # 2016 lists pairs of files, 2017 names of clips.
    lines = [line.split()[0] for line in listed.read_text().splitlines() if line.strip()]
    names = [line if "/" not in line else line.strip("/").split("/")[-2] for line in lines]
    for name in dict.fromkeys(names):
        frames = sorted((folder / "JPEGImages/480p" / name).glob("*.jpg"))
        maps = [_ids(p) for p in sorted((folder / "Annotations/480p" / name).glob("*.png"))]
        if not frames or len(maps) not in (1, len(frames)):  # test-dev has the first one only
            raise InputError(f"{name}: {len(frames)} frames and {len(maps)} annotations")
        if year == "2016":
            maps = [(ids > 0).astype(np.uint8) for ids in maps]
        truth = np.stack(maps) if len(maps) == len(frames) else None
        yield Clip(name, frames, {0: maps[0]}, truth)


def youtube_vos(folder: Path, split: str = "valid") -> Iterator[Clip]:
    """YouTube-VOS: SPLIT/JPEGImages/ID, SPLIT/Annotations/ID with the frames objects come up in.

    Where all frames have annotations (`train`), they are the truth, and an object is given in the
    first frame that shows it.
    """
    root = folder / split
    if not (root / "JPEGImages").is_dir():
        raise InputError(f"{root}/JPEGImages: no such folder; accepted: YouTube-VOS, unpacked")
    for place in sorted((root / "JPEGImages").iterdir()):
        frames = sorted(place.glob("*.jpg"))
        stems = {p.stem: number for number, p in enumerate(frames)}
        maps = {
            stems[p.stem]: _ids(p)
            for p in sorted((root / "Annotations" / place.name).glob("*.png"))
        }
        given: dict[int, Any] = {}
        known = set[int]()
        for number, ids in maps.items():
            new = {int(i) for i in np.unique(ids) if i} - known
            if new:  # only these are given here: what else is there is to be predicted
                alone = np.where(np.isin(ids, list(new)), ids, 0)
                given[number] = Added(alone) if known else alone
                known |= new
        truth = np.stack(list(maps.values())) if len(maps) == len(frames) else None
        yield Clip(place.name, frames, given, truth)


def of_set(path: Path) -> Iterator[Clip]:
    """Clips of a set of kind video, NAME.tar + NAME.json."""
    groups: dict[str, list[str]] = {}
    for item in json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["items"]:
        groups.setdefault(item["group"], []).append(item["id"])
    if describe(path).get("kind") != "video":
        raise InputError(f"{path}: not a set of clips")
    read = {name: (image, labels) for name, image, labels in read_pairs(path)}
    for name, ids in groups.items():
        truth = np.stack([read[i][1] for i in ids])
        first = next(n for n, labels in enumerate(truth) if ((labels > 0) & (labels < 255)).any())
        frames = [read[i][0] for i in ids][first:]
        yield Clip(name, frames, {0: truth[first]}, truth[first:], {"ignore": 255})


def _ids(path: Path) -> Array:
    return np.asarray(Image.open(path))
