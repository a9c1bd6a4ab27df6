"""CVAT for images 1.1: an XML file with masks as run lengths."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from incontext.errors import InputError, first_line
from incontext.formats.annotated_image import (
    AnnotatedImage,
    Size,
    alphabetical_ids,
    check_unique_ids,
    image_folder,
    parse_hex_color,
)
from incontext.formats.output import GENERATOR
from incontext.formats.polygons import Mask
from incontext.formats.results import LabelledImage
from incontext.inference.segmentation import write_text
from incontext.labels.coco import decode_rle, layered
from incontext.labels.color_mask import Rgb
from incontext.labels.encodings import IdMap

HEAD = f'<?xml version="1.0" encoding="utf-8"?>\n<!-- {GENERATOR} -->\n'


def write(results: Iterable[LabelledImage], out: Path) -> Path:
    """Write all results to one file: a `mask` for each id that an image shows.

    The labels are in `meta`, with their ids, which CVAT itself does not read.

    Raises:
        OSError: it cannot be written.
    """
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    meta = ElementTree.SubElement(root, "meta")
    names, colors = dict[int, str](), dict[int, Rgb]()
    for number, result in enumerate(results):
        names |= result.names
        colors |= result.colors
        height, width = result.labels.shape
        image = ElementTree.SubElement(
            root, "image", id=str(number), name=result.file_name, width=str(width),
            height=str(height),
        )  # fmt: skip
        for index, mask in result.masks():
            ElementTree.SubElement(image, "mask", _mask_attributes(mask, result.names[index]))
    labels = ElementTree.SubElement(ElementTree.SubElement(meta, "task"), "labels")
    for index in sorted(names):
        label = ElementTree.SubElement(labels, "label")
        ElementTree.SubElement(label, "name").text = names[index]
        ElementTree.SubElement(label, "color").text = "#{:02x}{:02x}{:02x}".format(*colors[index])
        ElementTree.SubElement(label, "id").text = str(index)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return write_text(out, f"{HEAD}{text}\n")


def _mask_attributes(mask: Mask, label: str) -> dict[str, str]:
    """Return the box around the mask, and the runs in it, row by row, background first."""
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


def read(path: Path, images: Path | None) -> Iterator[AnnotatedImage]:
    """Yield every image of the file: masks and polygons, a higher `z_order` on top.

    An image without any is all background. Ids are those in `meta`, else the order of the labels
    there, else the alphabetical order of the labels in use.

    Raises:
        InputError: no such file, a file of a video, or an image that is not found.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(f"{path}: not CVAT for images ({first_line(error)})") from None
    if root.tag != "annotations" or root.find("track") is not None:
        raise InputError(f"{path}: accepted: CVAT for images 1.1, which has no tracks")
    folder = image_folder(path, images)
    ids, colors = _read_labels(root, str(path))
    names = {index: name for name, index in ids.items()}
    for element in root.iter("image"):
        name = element.get("name", "")
        location = f"{path}: image {name}"
        try:
            image = folder.find(name)
            size = (int(element.get("width", "")), int(element.get("height", "")))
        except ValueError as error:  # InputError is one
            raise InputError(f"{location}: {error}") from None
        yield AnnotatedImage(location, image, partial(_draw, element, ids), names, colors, size)


def _read_labels(root: ElementTree.Element, path: str) -> tuple[dict[str, int], dict[int, Rgb]]:
    """Return ids by name and colors by id."""
    shapes = (shape for image in root.iter("image") for shape in image if shape.tag != "tag")
    used_names = {shape.get("label", "") for shape in shapes}
    meta = root.find("meta")
    labels = [] if meta is None else list(meta.iter("label"))
    if not labels:
        return alphabetical_ids(used_names), {}
    numbers = [label.findtext("id", "") for label in labels]
    numbered = all(number.isdecimal() for number in numbers)
    ids = {
        label.findtext("name", ""): int(number) if numbered else order
        for order, (label, number) in enumerate(zip(labels, numbers, strict=True), 1)
    }
    undefined = sorted(used_names - ids.keys())
    if undefined:
        raise InputError(f"{path}: label {undefined[0]!r} is used, but is not in meta")
    colors = {
        ids[label.findtext("name", "")]: parse_hex_color(label.findtext("color", ""))
        for label in labels
    }
    return check_unique_ids(ids, path), {i: rgb for i, rgb in colors.items() if rgb}


def _draw(image: ElementTree.Element, ids: dict[str, int], size: Size) -> IdMap:
    shapes = [shape for shape in image if shape.tag != "tag"]
    layers = dict[int, list[tuple[Mask, int]]]()  # by z_order
    for number, shape in enumerate(shapes, 1):
        try:
            mask = _read_mask(shape, size)
            order = int(shape.get("z_order", "0"))
        except (ValueError, TypeError) as error:  # InputError is a ValueError
            raise InputError(f"{shape.tag} {number}: {first_line(error)}") from None
        layers.setdefault(order, []).append((mask, ids[shape.get("label", "")]))
    labels = np.zeros((size[1], size[0]), np.int32)
    for order in sorted(layers):
        layer = layered(layers[order], size)
        labels = np.where(layer > 0, layer, labels)
    return labels


def _read_mask(shape: ElementTree.Element, size: Size) -> Mask:
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
