"""COCO: instance annotations as run lengths or polygons."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from incontext.errors import InputError, first_line
from incontext.formats.annotated_image import Found, Size, pictures_of
from incontext.formats.overwrite_guard import SIGN, check_file
from incontext.formats.polygons import polygons
from incontext.formats.results import Answered, Labelled
from incontext.inference.segmentation import write_text
from incontext.labels.coco import draw, encode_rle
from incontext.labels.color_mask import MAX_ID
from incontext.labels.encodings import UNKNOWN, IdMap

START = re.escape(f'{{"info": {{"description": "{SIGN}"}}, ')


class Coco:
    """A COCO file, gathered result by result.

    One annotation for each id that a picture shows: `category_id` is the id, `score` its presence.

    Args:
        outlines: `segmentation` as polygons along the edges of pixels instead of compressed RLE.

    Raises:
        InputError: (from `add`) faster-coco-eval, or for outlines SciPy, is missing.
    """

    def __init__(self, *, outlines: bool = False) -> None:
        self.outlines = outlines
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.names: dict[int, str] = {}

    def add(self, file_name: str, result: Answered) -> None:
        """One picture more."""
        height, width = result.labels.shape
        number = len(self.images) + 1
        self.images.append({"id": number, "file_name": file_name, "width": width, "height": height})
        self.names |= result.names
        for index, presence in result.presence.items():
            mask = np.asarray(result.labels == index)
            if not mask.any():
                continue
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            left, top = int(columns[0]), int(rows[0])
            self.annotations.append({
                "id": len(self.annotations) + 1, "image_id": number, "category_id": index,
                "segmentation": self._segmentation(mask), "area": int(mask.sum()), "iscrowd": 0,
                "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
                "score": round(float(presence), 6),
            })  # fmt: skip

    def _segmentation(self, mask: "np.ndarray[Any, np.dtype[np.bool_]]") -> Any:
        if self.outlines:
            return [ring.ravel().tolist() for ring in polygons(mask)]
        return encode_rle(mask)

    def document(self) -> dict[str, Any]:
        """What the file says."""
        categories = [{"id": i, "name": name} for i, name in sorted(self.names.items())]
        return {
            "images": self.images, "annotations": self.annotations, "categories": categories,
        }  # fmt: skip

    def save(self, path: str | Path) -> Path:
        """Write the file; it appears whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_text(path, json.dumps(self.document()))


def write(results: Iterable[Labelled], out: Path, outlines: bool = False) -> Path:
    """All results in one file; `file_name` is that of the picture, with the folders that tell
    it from others of the same name.

    Raises: see `Coco`; InputError: another file is there; OSError: it cannot be written.
    """
    check_file(out, START)
    made = Coco(outlines=outlines)
    for one in results:
        made.add(str(Path(one.name).with_name(one.source.name)), one)
    out.parent.mkdir(parents=True, exist_ok=True)
    return write_text(out, json.dumps({"info": {"description": SIGN}, **made.document()}))


write_outlines = partial(write, outlines=True)


def read(path: Path, images: Path | None) -> Iterator[Found]:
    """Read every picture of a COCO file, see `incontext.labels.coco.draw`.

    A picture without annotations is all background; where categories begin at 0, which is the
    background here, ids are one more.

    Raises:
        InputError: no COCO file, or annotations of pictures that are not in it.
    """
    said = _said(path)
    folder = pictures_of(path, images)
    lift = int(any(i == 0 for i in said.names))
    names = {i + lift: name for i, name in said.names.items()}
    for number, image in said.images.items():
        own = [
            {**a, "category_id": a["category_id"] + lift} if "category_id" in a else a
            for a in said.annotations.get(number, [])
        ]
        name = str(image["file_name"])
        where = f"{path}: image {name}"
        try:
            picture = folder.find(name)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        there = "width" in image and "height" in image
        size = (int(image["width"]), int(image["height"])) if there else None
        yield Found(where, picture, partial(_draw, own), names, size=size)


def _draw(annotations: list[Any], size: Size) -> IdMap:
    return draw(annotations, size, MAX_ID, UNKNOWN)


@dataclass(frozen=True)
class _Said:
    """A COCO file: pictures by id, annotations by the picture's id, names of categories."""

    images: dict[Any, dict[str, Any]]
    annotations: dict[Any, list[dict[str, Any]]]
    names: dict[int, str]


def _said(path: Path) -> _Said:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        listed = [(one["id"], dict(one)) for one in data["images"]]
        images = dict(listed)
        unnamed = [i for i, one in listed if not isinstance(one["file_name"], str)]
        names = {int(c["id"]): str(c["name"]) for c in data.get("categories", [])}
        annotations: dict[Any, list[dict[str, Any]]] = {}
        for one in data["annotations"]:
            annotations.setdefault(one["image_id"], []).append(dict(one))
            one.get("category_id", 1) + 0
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path}: not a COCO file with images and annotations "
            f"({type(error).__name__}: {first_line(error)})"
        ) from None
    strange = [i for i in annotations if i not in images]
    if unnamed or strange or len(listed) > len(images):
        raise InputError(
            f"{path}: " + (
                f"annotations of image {strange[0]!r}, which is not listed" if strange
                else f"image {unnamed[0]!r} has no file name" if unnamed
                else "two images have one id"
            )
        )  # fmt: skip
    return _Said(images, annotations, names)
