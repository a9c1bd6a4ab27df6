"""PACO-Part (Liu et al. 2024, Matcher): 4 folds of parts, seen in the object's box."""

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

EPISODES, FOLDS = 2500, 4


def episodes(folder: Path, fold: int, shots: int) -> list[Episode]:
    """List Matcher's episodes.

    paco_part_{train,val}.pkl: {"cid2img": {category: [{picture id: path}, …]}, "img2anno":
    {picture id: [annotation, …]}}; a fold takes every fourth category of the training part, as far
    as the validation part has more pictures of it than examples are shown.
    """
    root = require(folder / "PACO-Part")
    categories = list(load_plain_pickle(root / "paco/paco_part_train.pkl")["cid2img"])
    data = load_plain_pickle(root / "paco/paco_part_val.pkl")
    images_by_class = {c: list(_merge(images).items()) for c, images in data["cid2img"].items()}
    fold_classes = [categories[fold + FOLDS * v] for v in range(len(categories) // FOLDS)]
    classes = [c for c in fold_classes if len(images_by_class.get(c, [])) > shots]
    sampler, drawn_episodes = HSNetSampler(), []
    for _ in range(EPISODES if classes else 0):
        category = sampler.draw(classes)
        query = sampler.draw(images_by_class[category])
        query_item = _item(root, sampler, data["img2anno"], query, category)
        examples: list[Item] = []
        while len(examples) < shots:
            image = sampler.draw(images_by_class[category])
            if _short(image[1]) != _short(query[1]):
                examples.append(_item(root, sampler, data["img2anno"], image, category))
        drawn_episodes.append(Episode(classes.index(category), tuple(examples), query_item))
    return drawn_episodes


def _merge(images: list[dict[Any, str]]) -> dict[Any, str]:
    """Merge {picture id: path} dicts; the file lists some pictures twice."""
    paths: dict[Any, str] = {}
    for image in images:
        for key, path in image.items():
            paths.setdefault(key, path)
    return paths


def _short(path: str) -> str:
    return "/".join(path.split("/")[-2:])


def _item(
    root: Path, sampler: HSNetSampler, annotations: dict[Any, Any], image: tuple[Any, str],
    category: Any,
) -> Item:  # fmt: skip
    """Draw one of the image's objects that have the part; return the part in the object's box."""
    key, path = image
    objects: dict[Any, list[Any]] = {}
    for annotation in annotations[key]:
        if annotation["category_id"] == category:
            objects.setdefault(annotation["obj_ann_id"], []).append(annotation)
    parts = objects[sampler.draw(list(objects))]
    x, y, width, height = parts[0]["obj_bbox"]
    box = (int(x), int(y), int(x + width), int(y + height))

    def read() -> tuple[Image.Image, Ids]:
        picture = read_rgb(root / "coco" / _short(path))
        masks = [decode_rle(part["segmentation"], picture.size) for part in parts]
        x0, y0 = max(0, box[0]), max(0, box[1])
        x1, y1 = min(picture.width, box[2]), min(picture.height, box[3])
        ids = np.any(masks, 0).astype(np.int16)
        return picture.crop((x0, y0, x1, y1)), ids[y0:y1, x0:x1]

    return Item(_short(path), read)


PROTOCOL = FewShot(
    "paco-part", "PACO-Part", FOLDS,
    "PACO-Part/coco/{train2017,val2017}/NAME.jpg and PACO-Part/paco/paco_part_{train,val}.pkl "
    "(Matcher's)",
    "COCO", episodes,
    (("SegGPT", "13.5 / –"), ("Painter", "14.1 / –"), ("Matcher", "34.7 / –"),
     ("SINE", "23.3 / –"), ("INSID3", "38.7 / –"), ("FoRIS", "42.3 / –")),
)  # fmt: skip
