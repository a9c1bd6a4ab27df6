"""PACO-Part (Liu et al. 2024, Matcher): 4 folds of parts, seen in the object's box."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eval.core.protocol import Episode, FewShot, Ids, Item, Sampler, need, plain_pickle, rgb
from incontext.labels.coco import decode_rle

EPISODES, FOLDS = 2500, 4


def episodes(folder: Path, fold: int, shots: int) -> list[Episode]:
    """Matcher's episodes.

    paco_part_{train,val}.pkl: {"cid2img": {category: [{picture id: path}, …]}, "img2anno":
    {picture id: [annotation, …]}}; a fold takes every fourth category of the training part, as far
    as the validation part has more pictures of it than examples are shown.
    """
    root = need(folder / "PACO-Part")
    trained = list(plain_pickle(root / "paco/paco_part_train.pkl")["cid2img"])
    data = plain_pickle(root / "paco/paco_part_val.pkl")
    holders = {c: list(_once(pictures).items()) for c, pictures in data["cid2img"].items()}
    fold_classes = [trained[fold + FOLDS * v] for v in range(len(trained) // FOLDS)]
    classes = [c for c in fold_classes if len(holders.get(c, [])) > shots]
    sampler, found = Sampler(), []
    for _ in range(EPISODES if classes else 0):
        category = sampler.one(classes)
        query = sampler.one(holders[category])
        asked = _item(root, sampler, data["img2anno"], query, category)
        shown: list[Item] = []
        while len(shown) < shots:
            other = sampler.one(holders[category])
            if _short(other[1]) != _short(query[1]):
                shown.append(_item(root, sampler, data["img2anno"], other, category))
        found.append(Episode(classes.index(category), tuple(shown), asked))
    return found


def _once(pictures: list[dict[Any, str]]) -> dict[Any, str]:
    """Pictures without those that come again."""
    once: dict[Any, str] = {}
    for picture in pictures:
        for key, path in picture.items():
            once.setdefault(key, path)
    return once


def _short(path: str) -> str:
    return "/".join(path.split("/")[-2:])


def _item(
    root: Path, sampler: Sampler, annotations: dict[Any, Any], picture: tuple[Any, str],
    category: Any,
) -> Item:  # fmt: skip
    """The category's part of one object, drawn among the picture's objects that have it."""
    key, path = picture
    things: dict[Any, list[Any]] = {}
    for one in annotations[key]:
        if one["category_id"] == category:
            things.setdefault(one["obj_ann_id"], []).append(one)
    parts = things[sampler.one(list(things))]
    left, top, width, height = parts[0]["obj_bbox"]
    box = (int(left), int(top), int(left + width), int(top + height))

    def read() -> tuple[Image.Image, Ids]:
        image = rgb(root / "coco" / _short(path))
        masks = [decode_rle(part["segmentation"], image.size) for part in parts]
        seen = (max(0, box[0]), max(0, box[1]), min(image.width, box[2]), min(image.height, box[3]))
        ids = np.any(masks, 0).astype(np.int16)
        return image.crop(seen), ids[seen[1] : seen[3], seen[0] : seen[2]]

    return Item(_short(path), read)


PROTOCOL = FewShot(
    "paco-part", "PACO-Part", FOLDS,
    "PACO-Part/coco/{train2017,val2017}/NAME.jpg and PACO-Part/paco/paco_part_{train,val}.pkl "
    "(Matcher's)",
    "COCO", episodes,
    (("SegGPT", "13.5 / –"), ("Painter", "14.1 / –"), ("Matcher", "34.7 / –"),
     ("SINE", "23.3 / –"), ("INSID3", "38.7 / –"), ("FoRIS", "42.3 / –")),
)  # fmt: skip
