"""COCO panoptic (Kirillov et al. 2019): 80 things and 53 stuff classes, 2017's split."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eval.core.dense import VOID, Labelled, Map
from eval.core.protocol import need

LAYOUT = (
    "{train2017,val2017}/NAME.jpg, annotations/panoptic_{train,val}2017.json and "
    "annotations/panoptic_{train,val}2017/NAME.png"
)
PUBLISHED = (("SegGPT, tuned prompt", "34.4"),)


@dataclass(frozen=True)
class Panoptic:
    """A picture with its segments: (category id, is a crowd) by segment id."""

    image: Path
    segments: Path
    about: dict[int, tuple[int, bool]]

    def truth(self, order: dict[int, int]) -> Any:
        """(H, W, 2): class by `order` and segment number; class 255 where there is none."""
        rgb = np.asarray(Image.open(need(self.segments)).convert("RGB")).astype(np.int64)
        ids = rgb @ np.array([1, 256, 65536])
        answer = np.zeros((*ids.shape, 2), np.int64)
        answer[..., 0] = VOID
        for number, (segment, (category, _)) in enumerate(self.about.items(), 1):
            answer[ids == segment] = order[category], number
        return answer

    @property
    def crowds(self) -> set[int]:
        """Segment numbers of crowds."""
        return {n for n, (_, crowd) in enumerate(self.about.values(), 1) if crowd}


@dataclass(frozen=True)
class CocoPanoptic:
    """Both parts; classes are numbers in the order of the category ids."""

    shown: list[Panoptic]
    asked: list[Panoptic]
    names: list[str]
    things: list[int]
    stuff: list[int]
    order: dict[int, int]

    @classmethod
    def read(cls, folder: Path) -> "CocoPanoptic":
        """See `LAYOUT`."""
        (shown, categories), (asked, _) = (_part(folder, name) for name in ("train", "val"))
        categories = sorted(categories, key=lambda one: int(one["id"]))
        order = {int(one["id"]): number for number, one in enumerate(categories)}
        things, stuff = (
            [order[c["id"]] for c in categories if bool(c["isthing"]) == wanted]
            for wanted in (True, False)
        )
        return cls(shown, asked, [c["name"] for c in categories], things, stuff, order)

    def labelled(self, pictures: Sequence[Panoptic]) -> list[Labelled]:
        """Pictures with a class for each pixel."""
        return [self._labelled(one) for one in pictures]

    def _labelled(self, one: Panoptic) -> Labelled:
        def classes() -> Map:
            truth = one.truth(self.order)
            crowded = np.isin(truth[..., 1], list(one.crowds))  # many objects, none by itself
            return np.where(crowded, VOID, truth[..., 0]).astype(np.uint8)

        present = {self.order[c] for c, crowd in one.about.values() if not crowd}
        return Labelled(one.image.stem, one.image, classes, tuple(sorted(present)))


def _part(folder: Path, name: str) -> tuple[list[Panoptic], list[Any]]:
    said = json.loads(need(folder / f"annotations/panoptic_{name}2017.json").read_text())
    files = {int(one["id"]): one["file_name"] for one in said["images"]}
    found = []
    for one in said["annotations"]:
        about = {int(s["id"]): (int(s["category_id"]), bool(s.get("iscrowd")))
                 for s in one["segments_info"]}  # fmt: skip
        segments = folder / f"annotations/panoptic_{name}2017" / one["file_name"]
        found.append(Panoptic(folder / f"{name}2017" / files[one["image_id"]], segments, about))
    return found, said["categories"]
