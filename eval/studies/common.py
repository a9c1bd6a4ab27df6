"""Sets of labelled images, at their own size, for the studies."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from incontext import Example
from incontext.data.pictures import IGNORE_INDEX, Ids, read_metadata, read_pairs
from incontext.errors import InputError


def set_paths(folder: Path, names: Sequence[str] = ()) -> list[Path]:
    """List the sets whose classes mean the same in every image; only those named, if any.

    Raises:
        InputError: no such set in the folder.
    """
    paths = [p for p in sorted(folder.glob("*.tar")) if not names or p.stem in names]
    semantic = [p for p in paths if read_metadata(p).get("kind", "semantic") == "semantic"]
    if not semantic:
        raise InputError(f"{folder}: no validation sets (NAME.tar with NAME.json) here")
    return semantic


@dataclass(frozen=True)
class ImageSet:
    """Images with labels at their own size.

    Attributes:
        labels: (H, W) uint8 of each image, 255 is unknown.
        images_by_class: numbers of the images that show each class.
        classes: name of each class.
    """

    name: str
    title: str
    images: list[Image.Image]
    labels: list[Ids]
    images_by_class: dict[int, list[int]]
    classes: dict[int, str]

    @classmethod
    def read(cls, path: Path) -> "ImageSet":
        """Read NAME.tar and NAME.json.

        Raises:
            InputError: no NAME.json.
        """
        metadata_path = path.with_suffix(".json")
        if not metadata_path.is_file():
            raise InputError(f"{metadata_path}: no such file")
        metadata = json.loads(metadata_path.read_text(encoding="utf-8"))
        images: list[Image.Image] = []
        labels: list[Ids] = []
        numbers: dict[str, int] = {}
        for name, image, label in read_pairs(path):
            numbers[name] = len(images)
            images.append(image)
            labels.append(label)
        images_by_class: dict[int, list[int]] = {}
        for item in metadata["items"]:
            for index in item["classes"]:
                images_by_class.setdefault(int(index), []).append(numbers[item["id"]])
        classes = {int(k): v for k, v in metadata["classes"].items()}
        return cls(path.stem, metadata["title"], images, labels, images_by_class, classes)

    def example(self, number: int, index: int) -> Example:
        """Return an image as an example of one class against the rest."""
        return Example(self.images[number], self.binary_ids(number, index), ignore=-1)

    def examples(self, numbers: Sequence[int], index: int) -> list[Example]:
        """Return examples of one class; those on which it is unknown everywhere are left out."""
        examples = [self.example(number, index) for number in numbers]
        return [example for example in examples if example.labels.present]

    def binary_ids(self, number: int, index: int) -> np.ndarray[Any, np.dtype[np.int16]]:
        """Return an image's ids for one class: 1 the class, -1 unknown, 0 elsewhere."""
        labels = self.labels[number]
        ids = (labels == index).astype(np.int16)
        ids[labels == IGNORE_INDEX] = -1
        return ids

    def truth(self, number: int, index: int) -> tuple[Any, Any]:
        """Return the mask of one class and the mask of unknown pixels, (H, W) bool each."""
        return self.labels[number] == index, self.labels[number] == IGNORE_INDEX
