"""COCO: instance annotations as run lengths or polygons."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from incontext.errors import InputError, first_line
from incontext.formats.annotated_image import AnnotatedImage, Size, image_folder
from incontext.formats.output import GENERATOR
from incontext.formats.polygons import Mask, polygons
from incontext.formats.results import LabelledImage, SegmentationLike
from incontext.inference.segmentation import write_text
from incontext.labels.coco import draw, encode_rle
from incontext.labels.color_mask import MAX_ID
from incontext.labels.encodings import UNKNOWN, IdMap


class Coco:
    """A COCO file, collected result by result.

    One annotation for each id that an image shows: `category_id` is the id, `score` its presence.

    Args:
        outlines: write `segmentation` as polygons along the edges of pixels instead of compressed
            RLE.

    Raises:
        InputError: (from `add`) faster-coco-eval, or for outlines SciPy, is missing.
    """

    def __init__(self, *, outlines: bool = False) -> None:
        self.outlines = outlines
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.names: dict[int, str] = {}

    def add(self, file_name: str, result: SegmentationLike) -> None:
        """Add the result of one image."""
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

    def _segmentation(self, mask: Mask) -> Any:
        if self.outlines:
            return [ring.ravel().tolist() for ring in polygons(mask)]
        return encode_rle(mask)

    def document(self) -> dict[str, Any]:
        """Return the content of the file."""
        categories = [{"id": i, "name": name} for i, name in sorted(self.names.items())]
        return {"images": self.images, "annotations": self.annotations, "categories": categories}

    def save(self, path: str | Path) -> Path:
        """Write the file; it appears whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        return write_text(Path(path), json.dumps(self.document()))


def write(results: Iterable[LabelledImage], out: Path, outlines: bool = False) -> Path:
    """Write all results to one file.

    Raises: see `Coco`; OSError: it cannot be written.
    """
    file = Coco(outlines=outlines)
    for result in results:
        file.add(result.file_name, result)
    return write_text(out, json.dumps({"info": {"description": GENERATOR}, **file.document()}))


write_outlines = partial(write, outlines=True)


def read(path: Path, images: Path | None) -> Iterator[AnnotatedImage]:
    """Yield every image of a COCO file; labels as `incontext.labels.coco.draw` draws them.

    An image without annotations is all background. Where categories begin at 0, which is the
    background here, ids are one more.

    Raises:
        InputError: not a COCO file, or annotations of images that are not in it.
    """
    file = _read_file(path)
    folder = image_folder(path, images)
    shift = int(any(i == 0 for i in file.names))
    names = {i + shift: name for i, name in file.names.items()}
    for number, entry in file.images.items():
        annotations = [
            {**a, "category_id": a["category_id"] + shift} if "category_id" in a else a
            for a in file.annotations.get(number, [])
        ]
        name = str(entry["file_name"])
        location = f"{path}: image {name}"
        try:
            image = folder.find(name)
        except InputError as error:
            raise InputError(f"{location}: {error}") from None
        sized = "width" in entry and "height" in entry
        size = (int(entry["width"]), int(entry["height"])) if sized else None
        yield AnnotatedImage(location, image, partial(_draw, annotations), names, size=size)


def _draw(annotations: list[Any], size: Size) -> IdMap:
    return draw(annotations, size, MAX_ID, UNKNOWN)


@dataclass(frozen=True)
class _CocoFile:
    """A COCO file: images by id, annotations by the image's id, names of categories."""

    images: dict[Any, dict[str, Any]]
    annotations: dict[Any, list[dict[str, Any]]]
    names: dict[int, str]


def _read_file(path: Path) -> _CocoFile:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        entries = [(entry["id"], dict(entry)) for entry in data["images"]]
        images = dict(entries)
        unnamed = [i for i, entry in entries if not isinstance(entry["file_name"], str)]
        names = {int(c["id"]): str(c["name"]) for c in data.get("categories", [])}
        annotations: dict[Any, list[dict[str, Any]]] = {}
        for annotation in data["annotations"]:
            annotations.setdefault(annotation["image_id"], []).append(dict(annotation))
            annotation.get("category_id", 1) + 0  # raises TypeError unless it is a number
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path}: not a COCO file with images and annotations "
            f"({type(error).__name__}: {first_line(error)})"
        ) from None
    unlisted = [i for i in annotations if i not in images]
    if unlisted:
        raise InputError(f"{path}: annotations of image {unlisted[0]!r}, which is not listed")
    if unnamed:
        raise InputError(f"{path}: image {unnamed[0]!r} has no file name")
    if len(entries) > len(images):
        raise InputError(f"{path}: two images have one id")
    return _CocoFile(images, annotations, names)
