"""CVAT for images 1.1: an XML file with masks as run lengths."""

import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from incontext.errors import InputError, first_line
from incontext.formats.annotated_image import Found, Size, numbered, once, pictures_of, rgb_of
from incontext.formats.overwrite_guard import SIGN, check_file
from incontext.formats.results import Labelled
from incontext.inference.segmentation import write_text
from incontext.labels.coco import decode_rle, layered
from incontext.labels.color_mask import Rgb
from incontext.labels.encodings import IdMap

START = f'<?xml version="1.0" encoding="utf-8"?>\n<!-- {SIGN} -->\n'


def write(results: Iterable[Labelled], out: Path) -> Path:
    """One `mask` for each id that a picture shows; `name` is the picture's file name, with the
    folders that tell it from others of the same name.

    The labels are in `meta`, their ids too, which CVAT itself does not read.

    Raises:
        InputError: another file is there.
        OSError: it cannot be written.
    """
    check_file(out, re.escape(START))
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    meta = ElementTree.SubElement(root, "meta")
    names, colors = dict[int, str](), dict[int, Rgb]()
    for number, one in enumerate(results):
        names |= one.names
        colors |= one.colors
        height, width = one.labels.shape
        image = ElementTree.SubElement(
            root, "image", id=str(number), name=str(Path(one.name).with_name(one.source.name)),
            width=str(width), height=str(height),
        )  # fmt: skip
        for index in one.presence:
            if (one.labels == index).any():
                ElementTree.SubElement(image, "mask", _mask(one.labels == index, one.names[index]))
    labels = ElementTree.SubElement(ElementTree.SubElement(meta, "task"), "labels")
    for index in sorted(names):
        label = ElementTree.SubElement(labels, "label")
        ElementTree.SubElement(label, "name").text = names[index]
        ElementTree.SubElement(label, "color").text = "#{:02x}{:02x}{:02x}".format(*colors[index])
        ElementTree.SubElement(label, "id").text = str(index)
    ElementTree.indent(root)
    out.parent.mkdir(parents=True, exist_ok=True)
    text = ElementTree.tostring(root, encoding="unicode")
    return write_text(out, f"{START}{text}\n")


def _mask(mask: "np.ndarray[Any, np.dtype[np.bool_]]", label: str) -> dict[str, str]:
    """Attributes: the box around the mask, and runs in it, row by row, background first."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    flat = np.concatenate([[False], mask[top:bottom, left:right].ravel()])
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]), flat.size - 1)
    runs = np.diff(ends, prepend=0).tolist()
    return {
        "label": label, "source": "auto", "occluded": "0", "z_order": "0",
        "rle": ", ".join(map(str, runs)), "left": str(left), "top": str(top),
        "width": str(right - left), "height": str(bottom - top),
    }  # fmt: skip


def read(path: Path, images: Path | None) -> Iterator[Found]:
    """Every image of the file: masks and polygons, those of a higher `z_order` on top. One without
    any is all background. Ids are those in `meta`, or the order of labels there, or else their
    alphabetical order.

    Raises:
        InputError: no such file, one of a video, or a picture that is not found.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(f"{path}: not CVAT for images ({first_line(error)})") from None
    if root.tag != "annotations" or root.find("track") is not None:
        raise InputError(f"{path}: accepted: CVAT for images 1.1, which has no tracks")
    folder = pictures_of(path, images)
    ids, colors = _labels(root, str(path))
    names = {index: name for name, index in ids.items()}
    for image in root.iter("image"):
        name = image.get("name", "")
        where = f"{path}: image {name}"
        try:
            picture = folder.find(name)
            size = (int(image.get("width", "")), int(image.get("height", "")))
        except ValueError as error:  # InputError is one
            raise InputError(f"{where}: {error}") from None
        yield Found(where, picture, partial(_draw, image, ids), names, colors, size)


def _labels(root: ElementTree.Element, where: str) -> tuple[dict[str, int], dict[int, Rgb]]:
    """Ids by name, colors by id."""
    used = {s.get("label", "") for image in root.iter("image") for s in image if s.tag != "tag"}
    meta = root.find("meta")
    said = [] if meta is None else list(meta.iter("label"))
    if not said:
        return numbered(used), {}
    numbers = [label.findtext("id", "") for label in said]
    exact = all(number.isdecimal() for number in numbers)
    ids = {
        label.findtext("name", ""): int(number) if exact else order
        for order, (label, number) in enumerate(zip(said, numbers, strict=True), 1)
    }
    strange = sorted(used - ids.keys())
    if strange:
        raise InputError(f"{where}: label {strange[0]!r} is used, but is not in meta")
    colors = {
        ids[label.findtext("name", "")]: rgb_of(label.findtext("color", "")) for label in said
    }
    return once(ids, where), {i: rgb for i, rgb in colors.items() if rgb}


def _draw(image: ElementTree.Element, ids: dict[str, int], size: Size) -> IdMap:
    shapes = [shape for shape in image if shape.tag != "tag"]
    floors = dict[int, list[tuple[Any, int]]]()
    for number, shape in enumerate(shapes, 1):
        try:
            mask = _shape(shape, size)
            floor = int(shape.get("z_order", "0"))
        except (ValueError, TypeError) as error:  # InputError is a ValueError
            raise InputError(f"{shape.tag} {number}: {first_line(error)}") from None
        floors.setdefault(floor, []).append((mask, ids[shape.get("label", "")]))
    made = np.zeros((size[1], size[0]), np.int32)
    for floor in sorted(floors):
        drawn = layered(floors[floor], size)
        made = np.where(drawn > 0, drawn, made)
    return made


def _shape(shape: ElementTree.Element, size: Size) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    if shape.tag == "polygon":
        points = shape.get("points", "").split(";")
        return decode_rle([[float(p) for point in points for p in point.split(",")]], size)
    if shape.tag != "mask":
        raise InputError(f"{shape.get('label')}; accepted: mask, polygon, which have an outline")
    left, top, width, height = (int(shape.get(k, "")) for k in ("left", "top", "width", "height"))
    runs = [int(run) for run in shape.get("rle", "").split(",")]
    fits = left >= 0 and left + width <= size[0] and top >= 0 and top + height <= size[1]
    if not fits or min(runs) < 0 or sum(runs) != width * height:
        raise InputError("run lengths that do not fill its box, or a box outside the picture")
    flat = np.repeat(np.arange(len(runs)) % 2, runs).astype(bool)
    mask = np.zeros((size[1], size[0]), bool)
    mask[top : top + height, left : left + width] = flat.reshape(height, width)
    return mask
