"""Labelled data of other tools as examples: which readers there are, and what they recognise."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from incontext.data.pictures import IGNORE_INDEX, class_names, read_labelled, read_metadata
from incontext.errors import InputError, OmissionWarning, ShapeError, located
from incontext.files import decode_text
from incontext.formats import coco, cvat, geotiff, label_studio, nifti, results, voc, yolo
from incontext.formats.annotated_image import AnnotatedImage, Size, stored_labels
from incontext.images.image import read_image
from incontext.images.volume import picture_file, picture_name
from incontext.inference.example import Example
from incontext.labels.color_mask import MAX_ID
from incontext.labels.encodings import Labels
from incontext.labels.partial import mark


@dataclass(frozen=True)
class Reader:
    """A format that labelled data is read from, and how it is recognised."""

    read: Callable[[Path, Path | None], Iterator[AnnotatedImage]]
    recognises: Callable[[Path], bool]
    description: str


def _has_suffix(path: Path, *suffixes: str) -> bool:
    """Return whether a path is a file with one of these suffixes."""
    return path.is_file() and path.suffix.lower() in suffixes


def _begins(path: Path, suffix: str, start: str) -> bool:
    """Return whether a file has a suffix and begins with a character."""
    if not _has_suffix(path, suffix):
        return False
    with path.open("rb") as file:
        return decode_text(file.read(64), errors="ignore").lstrip()[:1] == start


def _read_pairs(path: Path, images: Path | None) -> Iterator[AnnotatedImage]:
    """Yield the images of a set in the folder layout of tuning and training."""
    if images is not None:
        raise InputError(f"{path}: a set with images/ of its own; images= (--images) says others")
    names = class_names(read_metadata(path))
    has_ids = has_unknown = False
    for name, image, ids in read_labelled(path):
        has_ids, has_unknown = has_ids or bool((ids > 0).any()), has_unknown or bool(ids.min() < 0)
        yield AnnotatedImage(f"{path}: {name}", image, partial(stored_labels, ids), names)
    if has_unknown and not has_ids:
        raise InputError(
            f"{path}: the labels hold 0 and {IGNORE_INDEX} only, and {IGNORE_INDEX} means unknown "
            "in a set; write the object as 1"
        )


READERS = {
    "results": Reader(
        results.read, lambda p: (p / "results.json").is_file(), "what `incontext segment` wrote"
    ),
    "yolo": Reader(
        yolo.read,
        lambda p: bool(yolo.data_files(p)) or _has_suffix(p, ".yaml", ".yml"),
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
        _read_pairs,
        lambda p: ((p / "images").is_dir() and (p / "labels").is_dir()) or p.suffix == ".tar",
        "images/ and labels/*.png of the same names",
    ),
    "geotiff": Reader(
        geotiff.read,
        lambda p: bool(geotiff.tiff_files(p)) if p.is_dir() else _has_suffix(p, ".tif", ".tiff"),
        "GeoTIFF label rasters, with their pictures",
    ),
    "nifti": Reader(
        nifti.read,
        lambda p: bool(nifti.nifti_files(p)) if p.is_dir() else nifti.is_nifti(p),
        "NIfTI label volumes, with their scans",
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
    """Read labelled data of another tool as examples, one at a time, in the file's order.

    Ids are the format's own if it has numbers from 1 on; names come along in `Example.names`.
    Labels count on the upright image, as all of these tools show it.

    Args:
        path: a file or folder in one of the formats of `READERS`.
        images: folder of the images (GeoTIFF, NIfTI: or one file); None: the file's folder, or the
            folder.
        format: name of the format; None: recognised from the file or folder.
        unlabelled: see `Example`.
        negative: see `Example`.

    Raises:
        InputError: an unknown format, no labelled image; from the iterator: an entry that cannot be
            read; file and entry are named. An outline or run lengths that cannot be drawn are left
            out with an `OmissionWarning`, and an image of which nothing else is known with them.
    """
    path, images = Path(path), Path(images) if images is not None else None
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if images is not None and not picture_file(images).exists():
        raise InputError(f"images {images}: no such folder")
    if format is not None and format not in READERS:
        raise InputError(f"format {format!r}; accepted: {', '.join(READERS)}")
    name = format or next((n for n, r in READERS.items() if r.recognises(path)), None)
    if name is None:
        formats = "; ".join(f"{n} ({r.description})" for n, r in READERS.items())
        raise InputError(f"{path}: labels of no known format; accepted: {formats}")
    return _examples(path, READERS[name].read(path, images), unlabelled, negative)


def _examples(
    path: Path,
    annotated_images: Iterator[AnnotatedImage],
    unlabelled: str,
    negative: int | Sequence[int] | None,
) -> Iterator[Example]:
    count, problems = 0, list[str]()  # problems are told once it is clear that not all have one
    for annotated in annotated_images:
        try:
            example = _example(annotated, unlabelled, negative)
        except ShapeError as problem:
            problems.append(str(problem))
        else:
            yield example
            count += 1
        while count and problems:
            text = f"{problems.pop(0)}; nothing else is in the picture, which is left out"
            warnings.warn(text, OmissionWarning, stacklevel=2)
    if problems:
        more = f" (and {len(problems) - 1} more pictures)" if len(problems) > 1 else ""
        raise InputError(problems[0] + more)
    if not count:
        raise InputError(f"{path}: no labelled picture in it")


def _example(
    annotated: AnnotatedImage, unlabelled: str, negative: int | Sequence[int] | None
) -> Example:
    with located(annotated.location):
        image = read_image(annotated.image)
        if annotated.size is not None:
            _check_size(annotated.size, image.size)
        ids = annotated.read_labels(image.size)
        _check_size(ids.shape[::-1], image.size)
        if ids.max(initial=0) > MAX_ID:
            raise InputError(f"id {ids.max()}; accepted: 0 … {MAX_ID}")
        present = set(np.unique(ids).tolist())
        labels = Labels(ids, {i: rgb for i, rgb in annotated.colors.items() if i in present})
        labels = mark(labels, unlabelled, negative)
    path = annotated.image
    source = (
        picture_name(path) if isinstance(path, Path) else annotated.location.rpartition(": ")[2]
    )
    return Example.from_labels(image, labels, annotated.names, source)


def _check_size(labels_size: Size, size: Size) -> None:
    """Raise InputError unless labels have the size of their image."""
    if labels_size != size:
        raise InputError(
            f"labels of {labels_size[0]}×{labels_size[1]}, their picture is {size[0]}×{size[1]}; "
            "they must have the same size (a picture with EXIF rotation counts upright)"
        )
