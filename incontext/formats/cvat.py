"""CVAT for images 1.1: an XML file with masks as run lengths."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from incontext.errors import InputError, ShapeError, located, parse_whole
from incontext.files import read_xml
from incontext.formats.annotated_image import (
    AnnotatedImage,
    Size,
    alphabetical_ids,
    image_folder,
    number_names,
    parse_hex_color,
)
from incontext.formats.output import GENERATOR, check_text
from incontext.formats.polygons import Mask
from incontext.formats.results import LabelledImage
from incontext.inference.segmentation import write_text
from incontext.labels.coco import decode_rle, drawable, layered
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
        names |= {i: check_text(name, "name", xml=True) for i, name in result.names.items()}
        colors |= result.colors
        file_name = check_text(result.file_name, "picture", xml=True)
        height, width = result.labels.shape
        image = ElementTree.SubElement(
            root, "image", id=str(number), name=file_name, width=str(width),
            height=str(height),
        )  # fmt: skip
        for index, mask in result.masks():
            ElementTree.SubElement(image, "mask", _mask_attributes(mask, names[index]))
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
    root = read_xml(path)
    if root.tag != "annotations" or root.find("track") is not None:
        raise InputError(f"{path}: accepted: CVAT for images 1.1, which has no tracks")
    folder = image_folder(path, images)
    ids, colors = _read_labels(root, str(path))
    names = {index: name for name, index in ids.items()}
    for element in root.iter("image"):
        name = element.get("name", "")
        location = f"{path}: image {name}"
        with located(location):
            image = folder.find(name)
            size = (_whole(element, "width"), _whole(element, "height"))
        yield AnnotatedImage(location, image, partial(_draw, element, ids), names, colors, size)


def _read_labels(root: ElementTree.Element, path: str) -> tuple[dict[str, int], dict[int, Rgb]]:
    """Return ids by name and colors by id."""
    shapes = (shape for image in root.iter("image") for shape in image if shape.tag != "tag")
    used_names = {shape.get("label", "") for shape in shapes}
    meta = root.find("meta")
    labels = [] if meta is None else list(meta.iter("label"))
    if not labels:
        return alphabetical_ids(used_names), {}
    # A file of several jobs may list the same labels for each of them.
    rows = [(label.findtext("name", ""), label.findtext("id")) for label in labels]
    ids = number_names(rows, path)
    undefined = sorted(used_names - ids.keys())
    if undefined:
        raise InputError(f"{path}: label {undefined[0]!r} is used, but is not in meta")
    colors = {
        ids[label.findtext("name", "")]: parse_hex_color(label.findtext("color", ""))
        for label in labels
    }
    return ids, {i: rgb for i, rgb in colors.items() if rgb}


def _draw(image: ElementTree.Element, ids: dict[str, int], size: Size) -> IdMap:
    def read_shape(number: int, shape: ElementTree.Element) -> tuple[int, Mask, int]:
        with located(f"{shape.tag} {number}"):
            label = shape.get("label", "")
            if not label:
                raise InputError("no label; accepted: shapes with one")
            order = _whole(shape, "z_order", "0", low=-(2**63))
            return order, _read_mask(shape, size), ids[label]

    layers = dict[int, list[tuple[Mask, int]]]()  # by z_order
    shapes = enumerate((shape for shape in image if shape.tag != "tag"), 1)
    for order, mask, index in drawable(shapes, read_shape):
        layers.setdefault(order, []).append((mask, index))
    labels = np.zeros((size[1], size[0]), np.int32)
    for order in sorted(layers):
        layer = layered(layers[order], size)
        labels = np.where(layer > 0, layer, labels)
    return labels


def _whole(element: ElementTree.Element, name: str, default: str = "", low: int = 0) -> int:
    return parse_whole(name, element.get(name, default), low)


def _read_mask(shape: ElementTree.Element, size: Size) -> Mask:
    if shape.tag == "polygon":
        return decode_rle([_read_points(shape.get("points", ""))], size)
    if shape.tag != "mask":
        raise InputError(f"{shape.get('label')}; accepted: mask, polygon, which have an outline")
    try:
        box = [_whole(shape, name) for name in ("left", "top", "width", "height")]
        texts = shape.get("rle", "").split(",")
        runs = [parse_whole("run of rle", text) for text in texts]
    except InputError as error:
        raise ShapeError(str(error)) from None
    left, top, width, height = box
    fits = left + width <= size[0] and top + height <= size[1]
    if not fits or sum(runs) != width * height:
        raise ShapeError("run lengths that do not fill its box, or a box outside the picture")
    flat = np.repeat(np.arange(len(runs)) % 2, runs).astype(bool)
    mask = np.zeros((size[1], size[0]), bool)
    mask[top : top + height, left : left + width] = flat.reshape(height, width)
    return mask


def _read_points(text: str) -> list[float]:
    """Return the corners x, y, x, y, … of "x,y;x,y;…"."""
    try:
        points = [(float(x), float(y)) for x, y in (p.split(",") for p in text.split(";"))]
    except ValueError:
        raise ShapeError(f"points {text[:60]!r}; accepted: x,y;x,y;…") from None
    return [coordinate for point in points for coordinate in point]
