"""LVIS-92i (Liu et al. 2024, Matcher): 10 folds of 92 classes, 2300 episodes a fold."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eval.core.protocol import (
    Episode,
    FewShot,
    HSNetSampler,
    Ids,
    Item,
    load_plain_pickle,
    read_rgb,
    require,
)
from incontext.labels.coco import decode_rle

EPISODES, FOLDS = 2300, 10


def episodes(folder: Path, fold: int, shots: int) -> list[Episode]:
    """List Matcher's episodes: the fold's classes in turn, a query, examples.

    lvis_val.pkl: {category: {picture: {"annotations": [{"segmentation": …}, …]}}}; a fold takes
    every tenth of the categories that have more pictures than examples are shown.
    """
    root = require(folder / "LVIS")
    annotations = load_plain_pickle(root / "lvis_val.pkl")
    categories = [c for c, images in annotations.items() if len(images) > shots]
    classes = [categories[fold + FOLDS * v] for v in range(len(categories) // FOLDS)]
    sampler, drawn_episodes = HSNetSampler(), []
    for number in range(EPISODES if classes else 0):
        category = classes[number % len(classes)]
        images = annotations[category]
        query = sampler.draw(list(images))
        names = sampler.draw_examples(list(images), query, shots)
        items = tuple(_item(root, name, images[name]) for name in names)
        index = number % len(classes)
        drawn_episodes.append(Episode(index, items, _item(root, query, images[query])))
    return drawn_episodes


def _item(root: Path, name: str, record: dict[str, Any]) -> Item:
    def read() -> tuple[Image.Image, Ids]:
        image = read_rgb(root / "coco" / name)
        masks = [decode_rle(a["segmentation"], image.size) for a in record["annotations"]]
        return image, np.any(masks, 0).astype(np.int16)

    return Item(name, read)


PROTOCOL = FewShot(
    "lvis-92i", "LVIS-92i", FOLDS,
    "LVIS/coco/{train2017,val2017}/NAME.jpg and LVIS/lvis_val.pkl (Matcher's)",
    "COCO", episodes,
    (("SegGPT", "18.6 / 25.4"), ("Painter", "10.5 / 10.9"), ("HSNet", "17.4 / 22.9"),
     ("VAT", "18.5 / 22.7"), ("Matcher", "33.0 / 40.0"), ("SINE", "31.2 / 35.5"),
     ("SANSA", "48.8 / 53.9"), ("INSID3", "41.8 / 47.2"), ("FoRIS", "42.8 / 51.0")),
)  # fmt: skip
