"""iSAID-5i (Yao et al. 2021): aerial pictures, 3 folds of 5 classes, 1000 episodes a fold."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from eval.core.protocol import Episode, FewShot, Item, fold_episodes, need, pairs_of, read_class

EPISODES, CLASSES_A_FOLD = 1000, 5
ENDING = "_instance_color_RGB.png"


def episodes(folder: Path, fold: int, shots: int) -> list[Episode]:
    """Episodes drawn like PASCAL-5i's, from splits/isaid/val/foldI.txt (lines NAME__CLASS).

    Without that file the list is made from the labels, sorted.
    """
    root = need(folder / "iSAID/val")
    listed = folder / f"splits/isaid/val/fold{fold}.txt"
    pairs = pairs_of(listed) if listed.is_file() else list(_pairs(root, fold))

    def item(name: str, index: int) -> Item:
        return read_class(root / f"images/{name}.png", root / f"semantic_png/{name}{ENDING}", index)

    return fold_episodes(pairs, shots, EPISODES, item)


def _pairs(root: Path, fold: int) -> Iterator[tuple[str, int]]:
    classes = range(CLASSES_A_FOLD * fold + 1, CLASSES_A_FOLD * (fold + 1) + 1)
    for path in sorted(need(root / "semantic_png").glob(f"*{ENDING}")):
        there = np.unique(np.asarray(Image.open(path)))
        yield from ((path.name.removesuffix(ENDING), int(i)) for i in there if i in classes)


PROTOCOL = FewShot(
    "isaid-5i", "iSAID-5i", 3,
    "iSAID/val/images/NAME.png, iSAID/val/semantic_png/NAME_instance_color_RGB.png (patches) and "
    "splits/isaid/val/foldI.txt",
    "iSAID", episodes,
)  # fmt: skip
