"""LVIS-92i (Liu et al. 2024, Matcher): 10 folds of 92 classes, 2300 episodes a fold."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eval.core.protocol import Episode, FewShot, Ids, Item, Sampler, need, plain_pickle, rgb
from incontext.labels.coco import decode_rle

EPISODES, FOLDS = 2300, 10


def episodes(folder: Path, fold: int, shots: int) -> list[Episode]:
    """Matcher's episodes: the fold's classes in turn, a query, examples.

    lvis_val.pkl: {category: {picture: {"annotations": [{"segmentation": …}, …]}}}; a fold takes
    every tenth of the categories that have more pictures than examples are shown.
    """
    root = need(folder / "LVIS")
    annotations = plain_pickle(root / "lvis_val.pkl")
    enough = [c for c, pictures in annotations.items() if len(pictures) > shots]
    classes = [enough[fold + FOLDS * v] for v in range(len(enough) // FOLDS)]
    sampler, found = Sampler(), []
    for number in range(EPISODES if classes else 0):
        category = classes[number % len(classes)]
        pictures = annotations[category]
        names = list(pictures)
        query = sampler.one(names)
        shown = sampler.others(names, query, shots)
        items = tuple(_item(root, name, pictures[name]) for name in shown)
        index = number % len(classes)
        found.append(Episode(index, items, _item(root, query, pictures[query])))
    return found


def _item(root: Path, name: str, said: dict[str, Any]) -> Item:
    def read() -> tuple[Image.Image, Ids]:
        picture = rgb(root / "coco" / name)
        masks = [decode_rle(a["segmentation"], picture.size) for a in said["annotations"]]
        return picture, np.any(masks, 0).astype(np.int16)

    return Item(name, read)


PROTOCOL = FewShot(
    "lvis-92i", "LVIS-92i", FOLDS,
    "LVIS/coco/{train2017,val2017}/NAME.jpg and LVIS/lvis_val.pkl (Matcher's)",
    "COCO", episodes,
    (("SegGPT", "18.6 / 25.4"), ("Painter", "10.5 / 10.9"), ("HSNet", "17.4 / 22.9"),
     ("VAT", "18.5 / 22.7"), ("Matcher", "33.0 / 40.0"), ("SINE", "31.2 / 35.5"),
     ("SANSA", "48.8 / 53.9"), ("INSID3", "41.8 / 47.2"), ("FoRIS", "42.8 / 51.0")),
)  # fmt: skip
