"""CVAT for images 1.1: an XML file with masks as run lengths."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from incontext.formats.labelled import Labelled
from incontext.segmentation import write_text


def write(results: Iterable[Labelled], out: Path) -> Path:
    """One `mask` for each id that a picture shows; `name` is the picture's file name.

    Raises:
        OSError: it cannot be written.
    """
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    for number, one in enumerate(results):
        height, width = one.labels.shape
        image = ElementTree.SubElement(
            root, "image", id=str(number), name=one.source.name, width=str(width),
            height=str(height),
        )  # fmt: skip
        for index in one.presence:
            if (one.labels == index).any():
                ElementTree.SubElement(image, "mask", _mask(one.labels == index, one.names[index]))
    ElementTree.indent(root)
    out.parent.mkdir(parents=True, exist_ok=True)
    text = ElementTree.tostring(root, encoding="unicode")
    return write_text(out, f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n')


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
