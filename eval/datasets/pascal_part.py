"""PASCAL-Part (Liu et al. 2024, Matcher): parts of objects, seen in the object's box."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eval.core.protocol import Episode, FewShot, Ids, Item, Sampler, need, rgb
from incontext.errors import InputError
from incontext.labels.coco import decode_rle

GROUPS = ("animals", "indoor", "person", "vehicles")  # the folds
MOST = 2500  # episodes of a fold
LEFT_OUT = ("aeroplane", "TAIL")


@dataclass(frozen=True)
class _Parts:
    """The dataset's folder and the draws."""

    root: Path
    sampler: Sampler

    def draw(self, names: list[str], thing: str, part: str, taken: list[str]) -> Item:
        """A picture not taken yet and an object on it that has the part; drawn until there is."""
        free = [name for name in names if name not in taken]
        for _ in range(1000):  # pictures hold other objects too
            if not free:
                break
            name = self.sampler.one(names)
            if name in taken:
                continue
            about = need(self.root / f"Annotations_Part_json_merged_part_classes/{name}.json")
            things = [o for o in json.loads(about.read_text())["object"] if o["name"] == thing]
            chosen = self.sampler.one(things)
            masks = [m for p in chosen["parts"] if p["name"] == part for m in p["mask"]]
            if masks:
                taken.append(name)
                return self._item(name, masks, chosen["bndbox"])
        raise InputError(f"{thing}+{part}: {len(names)} pictures are too few for an episode")

    def _item(self, name: str, masks: list[Any], box: dict[str, Any]) -> Item:
        left, top, right, bottom = (int(value) for value in box.values())

        def read() -> tuple[Image.Image, Ids]:
            picture = rgb(self.root / f"JPEGImages/{name}.jpg")
            mask = np.any([decode_rle(m, picture.size) for m in masks], 0).astype(np.int16)
            return picture.crop((left, top, right, bottom)), mask[top:bottom, left:right]

        return Item(name, read)


def episodes(folder: Path, fold: int, shots: int) -> list[Episode]:
    """Matcher's episodes: the fold's parts in turn."""
    root = need(folder / "Pascal-Part/VOCdevkit/VOC2010")
    things = json.loads(need(root / "all_obj_part_to_image.json").read_text())[GROUPS[fold]]
    things = things["object"]
    listed = [
        (thing, part, found["val"])
        for thing in things
        for part, found in things[thing]["part"].items()
    ]
    classes = [
        (thing, part, names)
        for thing, part, names in listed
        if names and things[thing]["part"][part]["train"] and (thing, part) != LEFT_OUT
    ]
    parts, found = _Parts(root, Sampler()), []
    count = min(MOST, sum(len(names) for _, _, names in listed)) if classes else 0
    for number in range(count):
        index = number % len(classes)
        thing, part, names = classes[index]
        taken: list[str] = []
        query, *shown = (parts.draw(names, thing, part, taken) for _ in range(shots + 1))
        found.append(Episode(index, tuple(shown), query))
    return found


PROTOCOL = FewShot(
    "pascal-part", "PASCAL-Part", len(GROUPS),
    "Pascal-Part/VOCdevkit/VOC2010/{JPEGImages,Annotations_Part_json_merged_part_classes} and "
    "all_obj_part_to_image.json there (Matcher's); folds: animals, indoor, person, vehicles",
    "VOC", episodes,
    (("SegGPT", "35.8 / –"), ("Painter", "30.4 / –"), ("Matcher", "42.9 / –"),
     ("SINE", "36.2 / –"), ("INSID3", "50.5 / –"), ("FoRIS", "55.8 / –")),
)  # fmt: skip
