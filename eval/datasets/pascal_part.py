"""PASCAL-Part (Liu et al. 2024, Matcher): parts of objects, seen in the object's box."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eval.core.protocol import Episode, FewShot, HSNetSampler, Ids, Item, read_rgb, require
from incontext.errors import InputError
from incontext.labels.coco import decode_rle

GROUPS = ("animals", "indoor", "person", "vehicles")  # the folds
MAX_EPISODES = 2500  # of a fold
EXCLUDED_PART = ("aeroplane", "TAIL")


@dataclass(frozen=True)
class _PartSampler:
    """The dataset's folder and the official draws."""

    root: Path
    sampler: HSNetSampler

    def draw(self, names: list[str], thing: str, part: str, used_names: list[str]) -> Item:
        """Draw an unused image and an object on it that has the part; add it to `used_names`.

        Raises:
            InputError: no such image is left.
        """
        unused_names = [name for name in names if name not in used_names]
        for _ in range(1000):  # an object of the image may lack the part
            if not unused_names:
                break
            name = self.sampler.draw(names)
            if name in used_names:
                continue
            file = require(self.root / f"Annotations_Part_json_merged_part_classes/{name}.json")
            objects = [o for o in json.loads(file.read_text())["object"] if o["name"] == thing]
            candidate = self.sampler.draw(objects)
            masks = [m for p in candidate["parts"] if p["name"] == part for m in p["mask"]]
            if masks:
                used_names.append(name)
                return self._item(name, masks, candidate["bndbox"])
        raise InputError(f"{thing}+{part}: {len(names)} pictures are too few for an episode")

    def _item(self, name: str, masks: list[Any], box: dict[str, Any]) -> Item:
        x0, y0, x1, y1 = (int(value) for value in box.values())

        def read() -> tuple[Image.Image, Ids]:
            image = read_rgb(self.root / f"JPEGImages/{name}.jpg")
            mask = np.any([decode_rle(m, image.size) for m in masks], 0).astype(np.int16)
            return image.crop((x0, y0, x1, y1)), mask[y0:y1, x0:x1]

        return Item(name, read)


def episodes(folder: Path, fold: int, shots: int) -> list[Episode]:
    """List Matcher's episodes: the fold's parts in turn."""
    root = require(folder / "Pascal-Part/VOCdevkit/VOC2010")
    things = json.loads(require(root / "all_obj_part_to_image.json").read_text())[GROUPS[fold]]
    things = things["object"]
    all_parts = [
        (thing, part, names["val"])
        for thing in things
        for part, names in things[thing]["part"].items()
    ]
    classes = [
        (thing, part, names)
        for thing, part, names in all_parts
        if names and things[thing]["part"][part]["train"] and (thing, part) != EXCLUDED_PART
    ]
    sampler, drawn_episodes = _PartSampler(root, HSNetSampler()), []
    count = min(MAX_EPISODES, sum(len(names) for _, _, names in all_parts)) if classes else 0
    for number in range(count):
        index = number % len(classes)
        thing, part, names = classes[index]
        used_names: list[str] = []
        query, *examples = (sampler.draw(names, thing, part, used_names) for _ in range(shots + 1))
        drawn_episodes.append(Episode(index, tuple(examples), query))
    return drawn_episodes


PROTOCOL = FewShot(
    "pascal-part", "PASCAL-Part", len(GROUPS),
    "Pascal-Part/VOCdevkit/VOC2010/{JPEGImages,Annotations_Part_json_merged_part_classes} and "
    "all_obj_part_to_image.json there (Matcher's); folds: animals, indoor, person, vehicles",
    "VOC", episodes,
    (("SegGPT", "35.8 / –"), ("Painter", "30.4 / –"), ("Matcher", "42.9 / –"),
     ("SINE", "36.2 / –"), ("INSID3", "50.5 / –"), ("FoRIS", "55.8 / –")),
)  # fmt: skip
