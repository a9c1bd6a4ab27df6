"""Episodes from sets of pictures, shared by the benchmarks."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from incontext.data.pictures import IGNORE_INDEX, Ids, read_metadata, read_pairs
from incontext.errors import InputError


def still_sets(folder: Path, names: Sequence[str] = ()) -> list[Path]:
    """Files of the sets whose classes mean the same in every picture; only those named, if any.

    Raises:
        InputError: none there.
    """
    paths = [p for p in sorted(folder.glob("*.tar")) if not names or p.stem in names]
    still = [p for p in paths if read_metadata(p).get("kind", "semantic") == "semantic"]
    if not still:
        raise InputError(f"{folder}: no validation sets (NAME.tar with NAME.json) here")
    return still


@dataclass(frozen=True)
class ImageSet:
    """Pictures with labels at their own size, and which picture holds which class."""

    name: str
    title: str
    images: list[Image.Image]
    labels: list[Ids]
    holders: dict[int, list[int]]
    classes: dict[int, str]

    @classmethod
    def read(cls, path: Path) -> "ImageSet":
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


def binary_ids(labels: Ids, index: int) -> np.ndarray[Any, np.dtype[np.int16]]:
    """1 where the class is, -1 where nothing is known, 0 elsewhere."""
    ids = (labels == index).astype(np.int16)
    ids[labels == IGNORE_INDEX] = -1
    return ids
