"""COCO panoptic (Kirillov et al. 2019): 80 things and 53 stuff classes, 2017's split."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eval.core.dense import ClassMap, SemanticImage
from eval.core.protocol import require
from incontext.data.pictures import IGNORE_INDEX

LAYOUT = (
    "{train2017,val2017}/NAME.jpg, annotations/panoptic_{train,val}2017.json and "
    "annotations/panoptic_{train,val}2017/NAME.png"
)
PUBLISHED = (("SegGPT, tuned prompt", "34.4"),)


@dataclass(frozen=True)
class PanopticImage:
    """An image with its segments.

    Attributes:
        segment_path: the label image, in whose colors segment ids are coded.
        segment_info: (category id, is a crowd) by segment id.
    """

    image_path: Path
    segment_path: Path
    segment_info: dict[int, tuple[int, bool]]

    def read_truth(self, class_order: dict[int, int]) -> Any:
        """Read class and segment number of each pixel, (H, W, 2); class 255: no segment.

        Args:
            class_order: class by category id.
        """
        colors = np.asarray(Image.open(require(self.segment_path)).convert("RGB")).astype(np.int64)
        ids = colors @ np.array([1, 256, 65536])
        truth = np.zeros((*ids.shape, 2), np.int64)
        truth[..., 0] = IGNORE_INDEX
        for number, (segment, (category, _)) in enumerate(self.segment_info.items(), 1):
            truth[ids == segment] = class_order[category], number
        return truth

    @property
    def crowds(self) -> set[int]:
        """Segment numbers of crowds."""
        return {n for n, (_, crowd) in enumerate(self.segment_info.values(), 1) if crowd}


@dataclass(frozen=True)
class CocoPanoptic:
    """Both splits; classes are numbered in the order of the category ids.

    Attributes:
        class_order: class by category id.
        things, stuff: the classes of each sort.
    """

    train_images: list[PanopticImage]
    val_images: list[PanopticImage]
    names: list[str]
    things: list[int]
    stuff: list[int]
    class_order: dict[int, int]

    @classmethod
    def read(cls, folder: Path) -> "CocoPanoptic":
        """Read the lists of images and segments in `LAYOUT`."""
        train_images, categories = _read_split(folder, "train")
        val_images, _ = _read_split(folder, "val")
        categories = sorted(categories, key=lambda category: int(category["id"]))
        class_order = {int(c["id"]): number for number, c in enumerate(categories)}
        things, stuff = (
            [class_order[c["id"]] for c in categories if bool(c["isthing"]) == is_thing]
            for is_thing in (True, False)
        )
        names = [category["name"] for category in categories]
        return cls(train_images, val_images, names, things, stuff, class_order)

    def semantic_images(self, images: Sequence[PanopticImage]) -> list[SemanticImage]:
        """Return images with a class for each pixel."""
        return [self._semantic_image(image) for image in images]

    def _semantic_image(self, image: PanopticImage) -> SemanticImage:
        def read_classes() -> ClassMap:
            truth = image.read_truth(self.class_order)
            # A crowd is many objects, none of them by itself: no example of its class.
            in_crowd = np.isin(truth[..., 1], list(image.crowds))
            return np.where(in_crowd, IGNORE_INDEX, truth[..., 0]).astype(np.uint8)

        present = {self.class_order[c] for c, crowd in image.segment_info.values() if not crowd}
        path = image.image_path
        return SemanticImage(path.stem, path, read_classes, tuple(sorted(present)))


def _read_split(folder: Path, name: str) -> tuple[list[PanopticImage], list[Any]]:
    """Read the images and the categories of "train" or "val"."""
    data = json.loads(require(folder / f"annotations/panoptic_{name}2017.json").read_text())
    files = {int(image["id"]): image["file_name"] for image in data["images"]}
    images = []
    for annotation in data["annotations"]:
        segment_info = {
            int(segment["id"]): (int(segment["category_id"]), bool(segment.get("iscrowd")))
            for segment in annotation["segments_info"]
        }
        segments = folder / f"annotations/panoptic_{name}2017" / annotation["file_name"]
        path = folder / f"{name}2017" / files[annotation["image_id"]]
        images.append(PanopticImage(path, segments, segment_info))
    return images, data["categories"]
