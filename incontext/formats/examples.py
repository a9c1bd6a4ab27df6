"""Labelled data of other tools as examples: which readers there are, and what they recognise."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from incontext.data.pictures import IGNORE, describe, read_pairs
from incontext.errors import InputError
from incontext.formats import coco, cvat, geotiff, label_studio, results, voc, yolo
from incontext.formats.annotated_image import Found, given
from incontext.images.image import read_image
from incontext.inference.example import Example
from incontext.labels.color_mask import MAX_ID
from incontext.labels.encodings import UNKNOWN, Labels
from incontext.labels.partial import mark


@dataclass(frozen=True)
class Reader:
    """How a format is read, and told from others."""

    read: Callable[[Path, Path | None], Iterator[Found]]
    recognises: Callable[[Path], bool]
    what: str


def _begins(path: Path, suffix: str, start: str) -> bool:
    """Whether a file has a suffix and begins with a character."""
    if not path.is_file() or path.suffix.lower() != suffix:
        return False
    with path.open("rb") as file:
        return file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == start.encode()


def _pairs(path: Path, images: Path | None) -> Iterator[Found]:
    """The folder layout of tuning and training."""
    if images is not None:
        raise InputError(f"{path}: a set with images/ of its own; images= (--images) says others")
    said = describe(path).get("classes", {})
    names = {int(i): str(n) for i, n in said.items() if str(i).isdecimal()} if said else {}
    for name, picture, ids in read_pairs(path):
        labels = np.where(ids == IGNORE, UNKNOWN, ids.astype(np.int32))
        yield Found(f"{path}: {name}", picture, partial(given, labels), names)


READERS = {
    "results": Reader(
        results.read, lambda p: (p / "results.json").is_file(), "what `incontext segment` wrote"
    ),
    "yolo": Reader(
        yolo.read,
        lambda p: bool(yolo.yamls(p)) or (p.is_file() and p.suffix.lower() in (".yaml", ".yml")),
        "YOLO segmentation: data.yaml, images/ and labels/",
    ),
    "voc": Reader(
        voc.read, lambda p: (p / voc.MASKS).is_dir(), "Pascal VOC: JPEGImages, SegmentationClass"
    ),
    "coco": Reader(coco.read, partial(_begins, suffix=".json", start="{"), "COCO: polygons, RLE"),
    "label-studio": Reader(
        label_studio.read, partial(_begins, suffix=".json", start="["), "Label Studio: JSON export"
    ),
    "cvat": Reader(cvat.read, partial(_begins, suffix=".xml", start="<"), "CVAT for images 1.1"),
    "pairs": Reader(
        _pairs,
        lambda p: ((p / "images").is_dir() and (p / "labels").is_dir()) or p.suffix == ".tar",
        "images/ and labels/*.png of the same names",
    ),
    "geotiff": Reader(
        geotiff.read,
        lambda p: (
            p.suffix.lower() in (".tif", ".tiff")
            or (p.is_dir() and bool(geotiff.tifs(p)))
        ),
        "GeoTIFF label rasters, pictures beside",
    ),
}  # fmt: skip


def read_examples(
    path: str | Path,
    *,
    images: str | Path | None = None,
    format: str | None = None,
    unlabelled: str = "background",
    negative: int | Sequence[int] | None = None,
) -> Iterator[Example]:
    """Labelled data of another tool as examples, one at a time, in the file's order.

    Ids are the format's own where it has numbers from 1 on; names come along in `Example.names`.
    Labels count on the upright picture, as all of these tools show it.

    Args:
        path: a file or folder in one of the formats of `READERS`.
        images: folder of the pictures (GeoTIFF: or one file); None: beside the file, or in the
            folder.
        format: name of the format; None: by looking.
        unlabelled: see `Example`.
        negative: see `Example`.

    Raises:
        InputError: an unknown format, no labelled picture; from the iterator: an entry that
            cannot be read; file and entry are named.
    """
    path, images = Path(path), Path(images) if images is not None else None
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if images is not None and not images.exists():
        raise InputError(f"images {images}: no such folder")
    if format is not None and format not in READERS:
        raise InputError(f"format {format!r}; accepted: {', '.join(READERS)}")
    name = format or next((n for n, r in READERS.items() if r.recognises(path)), None)
    if name is None:
        known = "; ".join(f"{n} ({r.what})" for n, r in READERS.items())
        raise InputError(f"{path}: labels of no known format; accepted: {known}")
    return _examples(path, READERS[name].read(path, images), unlabelled, negative)


def _examples(path: Path, found: Iterator[Found], *partly: Any) -> Iterator[Example]:
    count = 0
    for one in found:
        yield _example(one, *partly)
        count += 1
    if not count:
        raise InputError(f"{path}: no labelled picture in it")


def _example(one: Found, unlabelled: str, negative: int | Sequence[int] | None) -> Example:
    try:
        image = read_image(one.picture)
        if one.size not in (None, image.size):
            raise InputError(_differs(one.size, image.size))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ids = one.labels(image.size)
        if ids.shape != image.size[::-1]:
            raise InputError(_differs(ids.shape[::-1], image.size))
        if ids.max(initial=0) > MAX_ID:
            raise InputError(f"id {ids.max()}; accepted: 0 … {MAX_ID}")
        here = set(np.unique(ids).tolist())
        labels = Labels(ids, {i: rgb for i, rgb in one.colors.items() if i in here})
        labels = mark(labels, unlabelled, negative)
    except InputError as error:
        raise InputError(f"{one.where}: {error}") from None
    for warning in caught:
        warnings.warn(f"{one.where}: {warning.message}", stacklevel=4)
    source = one.picture.name if isinstance(one.picture, Path) else one.where.rpartition(": ")[2]
    return Example.of(image, labels, one.names, source)


def _differs(said: Any, size: tuple[int, int]) -> str:
    return (
        f"labels of {said[0]}×{said[1]}, their picture is {size[0]}×{size[1]}; they must have the "
        "same size (a picture with EXIF rotation counts upright)"
    )
