"""COCO annotations: looked up in a file, checked, drawn as an id map.

faster-coco-eval decodes them; what its C++ code trusts blindly is checked before.
"""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np

from incontext.errors import InputError, OmissionWarning, ShapeError, parse_whole
from incontext.labels.coco_file import CocoFile

Mask: TypeAlias = "np.ndarray[Any, np.dtype[np.bool_]]"
T = TypeVar("T")
R = TypeVar("R")


def import_mask_coder() -> Any:
    """Return faster-coco-eval's mask functions.

    Raises:
        InputError: it is not installed.
    """
    try:
        from faster_coco_eval import mask
    except ImportError:
        raise InputError(
            "COCO masks need faster-coco-eval: pip install 'incontext-seg[coco]'"
        ) from None
    return mask


def is_whole(value: Any) -> bool:
    """Return whether a value is an integer; True and False are not."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def annotations_of(path: Path, file_name: str | None, size: tuple[int, int]) -> list[Any]:
    """Return the annotations of one image in a COCO file.

    Raises:
        InputError: not a COCO file, no image or several of this name, or another size.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such file")
    if file_name is None:
        raise InputError(f"{path}: annotations are looked up by file name; pass the picture's path")
    images = CocoFile.read(path).named(file_name)
    if len(images) != 1:
        raise InputError(f"{path}: {len(images)} pictures named {file_name!r}, expected 1")
    noted_size = images[0].size or size
    if noted_size != size:
        raise InputError(
            f"{path}: {file_name} is {noted_size[0]}×{noted_size[1]} there, the picture is "
            f"{size[0]}×{size[1]}; they must have the same size (a picture with EXIF rotation "
            "counts upright)"
        )
    return images[0].annotations


def draw(
    source: dict[str, Any] | list[Any],
    size: tuple[int, int],
    max_id: int,
    crowd_id: int,
    *,
    omit: bool = False,
) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Draw annotations as ids (H, W) int32: `category_id`, 1 if there is none.

    A smaller object lies over a larger one.

    Args:
        size: (width, height).
        crowd_id: id of annotations with `iscrowd`.
        omit: leave out what cannot be drawn, as `drawable` does.

    Raises:
        InputError: see `decode_rle`; the annotation's number is named.
    """  # fmt: skip
    annotations = [source] if isinstance(source, dict) else source
    if isinstance(source, dict) and "annotations" in source:
        raise InputError("a whole COCO file; pass its path, or the annotations of one picture")
    images = {str(a["image_id"]) for a in annotations if isinstance(a, dict) and "image_id" in a}
    if len(images) > 1:
        raise InputError(f"COCO annotations of {len(images)} pictures; pass those of one")

    def read(number: int, annotation: Any) -> tuple[Mask, int]:
        try:
            return _read_annotation(annotation, size, max_id, crowd_id)
        except InputError as error:
            own = annotation.get("id") if isinstance(annotation, dict) else None
            noted = "" if own is None else f" (id {own!r:.60})"
            raise type(error)(f"COCO annotation {number}{noted}: {error}") from None

    numbered = list(enumerate(annotations))
    if omit:
        return layered(drawable(numbered, read), size)
    return layered((read(*item) for item in numbered), size)


def _read_annotation(
    annotation: Any, size: tuple[int, int], max_id: int, crowd_id: int
) -> tuple[Mask, int]:
    """Return the mask of an annotation with its id."""
    if not isinstance(annotation, dict):
        raise InputError(f"a {type(annotation).__name__}, no dict")
    label = parse_whole("category_id", annotation.get("category_id", 1), 1, max_id)
    crowd = annotation.get("iscrowd", 0)
    if not isinstance(crowd, (bool, np.bool_)):
        crowd = parse_whole("iscrowd", crowd, 0, 1)
    return decode_rle(
        annotation.get("segmentation", annotation), size
    ), crowd_id if crowd else label


def drawable(shapes: Iterable[tuple[int, T]], read: Callable[[int, T], R]) -> Iterator[R]:
    """Yield what `read(number, shape)` makes of the shapes of one image that can be drawn.

    The others are left out with an `OmissionWarning` each.

    Raises:
        ShapeError: there are shapes, and none can be drawn.
        InputError: what `read` raises, unless it is a `ShapeError`.
    """
    problems, count = list[ShapeError](), 0
    for number, shape in shapes:
        try:
            result = read(number, shape)
        except ShapeError as error:
            problems.append(error)
            continue
        count += 1
        yield result
    if problems and not count:
        raise problems[0]
    for problem in problems:
        warnings.warn(f"{problem}; left out", OmissionWarning, stacklevel=2)


def layered(
    masks: Iterable[tuple[Mask, int]], size: tuple[int, int]
) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Lay masks (H, W) with their ids over each other: ids (H, W) int32, small over large.

    Warns of an id that is covered completely.
    """
    parts = []
    for mask, label in masks:  # only the box of each is kept: there may be thousands
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(rows):
            box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
            parts.append((int(mask.sum()), box, mask[box].copy(), label))
    ids = np.zeros((size[1], size[0]), np.int32)
    for _, box, inside, label in sorted(parts, key=lambda row: -row[0]):
        ids[box][inside] = label
    hidden = {label for *_, label in parts if label > 0} - set(np.unique(ids).tolist())
    if hidden:
        warnings.warn(f"id {min(hidden)} lies wholly under smaller objects", stacklevel=3)
    return ids


def decode_rle(rle: Any, size: tuple[int, int]) -> Mask:
    """Decode COCO polygons or run lengths to (H, W) bool, by faster-coco-eval.

    Raises:
        ShapeError: malformed data.
        InputError: the package is missing, another size than (width, height).
    """
    coder = import_mask_coder()
    width, height = size
    _check_segmentation(rle, size)
    try:
        if isinstance(rle, dict) and not isinstance(rle.get("counts"), list):
            counts = rle["counts"]
            counts = counts.encode() if isinstance(counts, str) else counts
            return _decode_compressed(counts, height, width)
        compressed = coder.frPyObjects(rle, height, width)
        if isinstance(compressed, list):
            compressed = coder.merge(compressed)
        return np.asarray(coder.decode(compressed), bool)
    except InputError:
        raise
    except Exception as error:  # the extension raises what its C++ code happens to raise
        raise ShapeError(f"malformed segmentation ({type(error).__name__}: {error})") from None


def encode_rle(mask: Mask) -> dict[str, Any]:
    """Encode (H, W) bool as {"size": [H, W], "counts": text}, which `decode_rle` reads.

    Raises:
        InputError: the package is missing.
    """
    rle = import_mask_coder().encode(np.asfortranarray(mask.astype(np.uint8)))
    counts = rle["counts"]
    return {
        "size": [int(n) for n in rle["size"]],
        "counts": counts.decode() if isinstance(counts, bytes) else counts,
    }


def _check_segmentation(rle: Any, size: tuple[int, int]) -> None:
    """Raise InputError unless `rle` has the form of polygons or of run lengths of this size."""
    width, height = size
    if isinstance(rle, dict):
        if "counts" not in rle:
            raise ShapeError("neither segmentation nor counts in it; accepted: polygons or RLE")
        rle_size = rle.get("size")
        if not isinstance(rle_size, (list, tuple)) or list(rle_size) != [height, width]:
            raise InputError(
                f"RLE of size {rle_size!r:.60} (height, width); expected [{height}, {width}]"
            )
        runs = rle["counts"]
        if isinstance(runs, list) and (
            not all(is_whole(n) and n >= 0 for n in runs) or sum(runs) != width * height
        ):
            raise ShapeError("RLE runs must be whole numbers whose sum is width · height")
        if not isinstance(runs, (list, str, bytes)):
            raise ShapeError(f"RLE counts are a {type(runs).__name__}; accepted: list, text, bytes")
    elif not (isinstance(rle, list) and rle and all(_is_polygon(p, size) for p in rle)):
        raise ShapeError(
            "segmentation must be RLE, or a list of polygons [x, y, x, y, …] of six numbers or "
            "more, none farther outside the picture than its width and height"
        )


def _is_polygon(points: Any, size: tuple[int, int]) -> bool:
    # The C++ code takes memory for every pixel of an outline, also outside the picture.
    return (
        isinstance(points, list)
        and len(points) >= 6
        and len(points) % 2 == 0
        and all(isinstance(p, (int, float, np.number)) and not isinstance(p, bool) for p in points)
        and all(-size[i % 2] <= p <= 2 * size[i % 2] for i, p in enumerate(points))
    )


def _decode_compressed(counts: bytes, height: int, width: int) -> Mask:
    """Decode compressed counts; the runs are summed first, since the C++ decoder trusts them."""
    total, value, shift, runs = 0, 0, 0, list[int]()
    for byte in counts:
        code = byte - 48
        if not 0 <= code < 64:
            raise ShapeError(f"RLE counts hold the byte {byte}, outside 48 … 111")
        value |= (code & 31) << shift
        shift += 5
        if shift > 60:  # more than the decoder's integers hold
            raise ShapeError("RLE counts hold a run of endless length")
        if not code & 32:
            value -= (1 << shift) if code & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            total, value, shift = total + runs[-1], 0, 0
    if shift:
        raise ShapeError("RLE counts end within a run")
    if total != height * width or min(runs, default=0) < 0:
        raise ShapeError(f"RLE runs cover {total} pixels; expected {height * width}")
    rle = {"size": [height, width], "counts": counts}
    return np.asarray(import_mask_coder().decode(rle), bool)
