"""PASCAL-5i (Shaban et al. 2017), episodes of HSNet: 1000 a fold."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from eval.core.protocol import (
    Episode,
    FewShot,
    Item,
    class_item,
    fold_episodes,
    read_fold_list,
    require,
)

EPISODES = 1000
CLASSES_A_FOLD = 5


def episodes(folder: Path, fold: int, shots: int) -> list[Episode]:
    """List HSNet's episodes of a fold from splits/pascal/val/foldI.txt.

    Without that file the list is made from ImageSets/Segmentation/val.txt and the labels, sorted;
    the order, and with it the episodes, may then differ from the published ones.
    """
    root = require(folder / "VOC2012")
    fold_list = folder / f"splits/pascal/val/fold{fold}.txt"
    pairs = read_fold_list(fold_list) if fold_list.is_file() else list(_pairs(root, fold))

    def item(name: str, index: int) -> Item:
        return class_item(
            root / f"JPEGImages/{name}.jpg", root / f"SegmentationClassAug/{name}.png", index
        )

    return fold_episodes(pairs, shots, EPISODES, item)


def _pairs(root: Path, fold: int) -> Iterator[tuple[str, int]]:
    classes = range(CLASSES_A_FOLD * fold + 1, CLASSES_A_FOLD * (fold + 1) + 1)
    names = sorted(require(root / "ImageSets/Segmentation/val.txt").read_text().split())
    for name in names:
        present = np.unique(np.asarray(Image.open(root / f"SegmentationClassAug/{name}.png")))
        yield from ((name, int(index)) for index in present if index in classes)


PROTOCOL = FewShot(
    "pascal-5i", "PASCAL-5i", 4,
    "VOC2012/{JPEGImages,SegmentationClassAug}/NAME, splits/pascal/val/foldI.txt (HSNet's), or "
    "VOC2012/ImageSets/Segmentation/val.txt",
    "VOC", episodes,
    (("SegGPT", "83.2 / 89.8 in"), ("Painter", "64.5 / 64.6 in"), ("HSNet", "66.2 / 70.4"),
     ("VAT", "67.9 / 72.0"), ("Matcher", "67.9 / 75.6"), ("SINE", "85.4 / 86.2 in")),
)  # fmt: skip
