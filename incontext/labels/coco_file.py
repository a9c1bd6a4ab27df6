"""COCO file: its images with their annotations, checked and under ids; one reading for all uses."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from incontext.errors import InputError, explain_parsing, parse_whole


@dataclass(frozen=True)
class CocoImage:
    """An image of a COCO file.

    Attributes:
        file_name: as it is in the file, with folders.
        size: (width, height) that the file gives; None if it gives none.
        annotations: with `category_id` as ids, 1 or more.
    """

    file_name: str
    size: tuple[int, int] | None
    annotations: list[dict[str, Any]]


@dataclass(frozen=True)
class CocoFile:
    """A COCO file: images in its order, names by id.

    Where categories begin at 0, which is the background here, ids are one more. Whole numbers may
    be written as text.
    """

    images: list[CocoImage]
    names: dict[int, str]

    @classmethod
    def read(cls, path: Path) -> "CocoFile":
        """Read a file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark.

        Raises:
            InputError: not a COCO file, a field of another type, annotations of images that are
                not in it, two images or two names under one id.
        """
        with explain_parsing(path, "a COCO file with images and annotations"):
            data = json.loads(path.read_bytes())
            return cls._parse(data["images"], data["annotations"], data.get("categories", []))

    @classmethod
    def _parse(cls, entries: Any, annotations: Any, categories: Any) -> "CocoFile":
        names = _category_names(categories)
        shift = int(0 in names)
        images: dict[Any, CocoImage] = {}
        for entry in entries:
            key, file_name = _key(entry["id"]), entry["file_name"]
            if not isinstance(file_name, str) or not file_name:
                raise InputError(f"image {entry['id']!r:.60} has no file name")
            if key in images:
                raise InputError(f"two images have the id {entry['id']!r:.60}")
            images[key] = CocoImage(file_name, _size(entry), [])
        for annotation in annotations:
            image = images.get(_key(annotation["image_id"]))
            if image is None:
                number = annotation["image_id"]
                raise InputError(f"annotations of image {number!r:.60}, which is not listed")
            image.annotations.append(_shifted(annotation, shift, image.file_name))
        return cls(list(images.values()), {i + shift: name for i, name in names.items()})

    def named(self, file_name: str) -> list[CocoImage]:
        """Return the images with this file name, whatever folders are in front of it."""
        return [
            i for i in self.images if i.file_name.replace("\\", "/").split("/")[-1] == file_name
        ]


def _key(value: Any) -> Any:
    """Return the id of an image: numbers as such, however they are written; else any text."""
    try:
        return parse_whole("id", value, -(2**63))
    except InputError:
        if isinstance(value, str):
            return value
        raise InputError(f"image id {value!r:.60}; accepted: numbers, text") from None


def _category_names(categories: Any) -> dict[int, str]:
    names: dict[int, str] = {}
    for category in categories:
        index, name = parse_whole("category", category["id"]), category["name"]
        if isinstance(name, bool) or not isinstance(name, (str, int, float)):
            raise InputError(f"category {index}: name {name!r:.60}; accepted: text")
        if names.setdefault(index, str(name)) != str(name):
            raise InputError(f"category {index} is called {names[index]!r} and {name!r}")
    return names


def _size(entry: dict[str, Any]) -> tuple[int, int] | None:
    if "width" not in entry and "height" not in entry:
        return None
    width, height = (
        parse_whole(f"image {entry['file_name']}: {side}", entry.get(side), 1)
        for side in ("width", "height")
    )
    return width, height


def _shifted(annotation: Any, shift: int, file_name: str) -> dict[str, Any]:
    if "category_id" not in annotation:
        return dict(annotation)
    where = f"image {file_name}: annotation {annotation.get('id', '')}: category_id"
    index = parse_whole(where, annotation["category_id"])
    return {**annotation, "category_id": index + shift}
