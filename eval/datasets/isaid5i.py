"""iSAID-5i (Yao et al. 2021): aerial pictures, 3 folds of 5 classes, 1000 episodes a fold."""

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

EPISODES, CLASSES_A_FOLD = 1000, 5
ENDING = "_instance_color_RGB.png"


def episodes(folder: Path, fold: int, shots: int) -> list[Episode]:
    """List episodes drawn like PASCAL-5i's, from splits/isaid/val/foldI.txt (lines NAME__CLASS).

    Without that file the list is made from the labels, sorted.
    """
    root = require(folder / "iSAID/val")
    fold_list = folder / f"splits/isaid/val/fold{fold}.txt"
    pairs = read_fold_list(fold_list) if fold_list.is_file() else list(_pairs(root, fold))

    def item(name: str, index: int) -> Item:
        return class_item(root / f"images/{name}.png", root / f"semantic_png/{name}{ENDING}", index)

    return fold_episodes(pairs, shots, EPISODES, item)


def _pairs(root: Path, fold: int) -> Iterator[tuple[str, int]]:
    classes = range(CLASSES_A_FOLD * fold + 1, CLASSES_A_FOLD * (fold + 1) + 1)
    for path in sorted(require(root / "semantic_png").glob(f"*{ENDING}")):
        present = np.unique(np.asarray(Image.open(path)))
        yield from ((path.name.removesuffix(ENDING), int(i)) for i in present if i in classes)


PROTOCOL = FewShot(
    "isaid-5i", "iSAID-5i", 3,
    "iSAID/val/images/NAME.png, iSAID/val/semantic_png/NAME_instance_color_RGB.png (patches) and "
    "splits/isaid/val/foldI.txt",
    "iSAID", episodes,
)  # fmt: skip
