"""PASCAL-5i (Shaban et al. 2017), episodes of HSNet: 1000 a fold."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from eval.core.protocol import Episode, FewShot, Item, fold_episodes, need, pairs_of, read_class

EPISODES = 1000
CLASSES_A_FOLD = 5


def episodes(folder: Path, fold: int, shots: int) -> list[Episode]:
    """HSNet's episodes of a fold.

    Its list is read from splits/pascal/val/foldI.txt; without that file it is made anew from
    ImageSets/Segmentation/val.txt and the labels, sorted, so that the order and with it the
    episodes may be others than the published.
    """
    root = need(folder / "VOC2012")
    listed = folder / f"splits/pascal/val/fold{fold}.txt"
    pairs = pairs_of(listed) if listed.is_file() else list(_pairs(root, fold))

    def item(name: str, index: int) -> Item:
        return read_class(
            root / f"JPEGImages/{name}.jpg", root / f"SegmentationClassAug/{name}.png", index
        )

    return fold_episodes(pairs, shots, EPISODES, item)


def _pairs(root: Path, fold: int) -> Iterator[tuple[str, int]]:
    classes = range(CLASSES_A_FOLD * fold + 1, CLASSES_A_FOLD * (fold + 1) + 1)
    names = sorted(need(root / "ImageSets/Segmentation/val.txt").read_text().split())
    for name in names:
        there = np.unique(np.asarray(Image.open(root / f"SegmentationClassAug/{name}.png")))
        yield from ((name, int(index)) for index in there if index in classes)


PROTOCOL = FewShot(
    "pascal-5i", "PASCAL-5i", 4,
    "VOC2012/{JPEGImages,SegmentationClassAug}/NAME, splits/pascal/val/foldI.txt (HSNet's), or "
    "VOC2012/ImageSets/Segmentation/val.txt",
    "VOC", episodes,
    (("SegGPT", "83.2 / 89.8 in"), ("Painter", "64.5 / 64.6 in"), ("HSNet", "66.2 / 70.4"),
     ("VAT", "67.9 / 72.0"), ("Matcher", "67.9 / 75.6"), ("SINE", "85.4 / 86.2 in")),
)  # fmt: skip
