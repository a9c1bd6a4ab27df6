"""Episodes from sets of pictures, shared by the benchmarks."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from incontext.episodes import IGNORE, Ids, read_pairs
from incontext.errors import InputError


@dataclass(frozen=True)
class LabelledSet:
    """Pictures with labels at their own size, and which picture holds which class."""

    name: str
    title: str
    images: list[Image.Image]
    labels: list[Ids]
    holders: dict[int, list[int]]
    classes: dict[int, str]

    @classmethod
    def read(cls, path: Path) -> "LabelledSet":
        """Read `NAME.tar` with the `NAME.json` beside it."""
        described = path.with_suffix(".json")
        if not described.is_file():
            raise InputError(f"{described}: no such file")
        about = json.loads(described.read_text(encoding="utf-8"))
        images: list[Image.Image] = []
        labels: list[Ids] = []
        order: dict[str, int] = {}
        for name, image, label in read_pairs(path):
            order[name] = len(images)
            images.append(image)
            labels.append(label)
        holders: dict[int, list[int]] = {}
        for item in about["items"]:
            for index in item["classes"]:
                holders.setdefault(int(index), []).append(order[item["id"]])
        classes = {int(k): v for k, v in about["classes"].items()}
        return cls(path.stem, about["title"], images, labels, holders, classes)


@dataclass(frozen=True)
class BinaryEpisode:
    """One class against the rest: pictures by number, the query last."""

    index: int
    pictures: list[int]


def binary_episodes(
    data: LabelledSet, examples: int, count: int, seed: int = 0
) -> Iterator[BinaryEpisode]:
    """Each class in turn, pictures that hold it drawn without replacement.

    Classes with too few pictures are left out.
    """
    rng = np.random.default_rng(seed)
    classes = sorted(c for c, held in data.holders.items() if len(held) > examples)
    for number in range(count if classes else 0):
        index = classes[number % len(classes)]
        chosen = rng.choice(data.holders[index], examples + 1, replace=False)
        yield BinaryEpisode(index, [int(i) for i in chosen])


def binary_ids(labels: Ids, index: int) -> np.ndarray[Any, np.dtype[np.int16]]:
    """1 where the class is, -1 where nothing is known, 0 elsewhere."""
    ids = (labels == index).astype(np.int16)
    ids[labels == IGNORE] = -1
    return ids
