"""COCO annotations: looked up in a file, checked, drawn as an id map.

Decoding is faster-coco-eval's; what its C++ code would trust is checked before.
"""

import json
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from incontext.errors import InputError


def check_coding() -> Any:
    """faster-coco-eval's mask functions.

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
    """Whether a value is an integer, which True and False are not."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def annotations_of(path: Path, file_name: str | None, size: tuple[int, int]) -> list[Any]:
    """The annotations of one picture in a COCO file."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if file_name is None:
        raise InputError(f"{path}: annotations are looked up by file name; pass the picture's path")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        pictures = [p for p in data["images"] if Path(p["file_name"]).name == file_name]
        annotations = [
            a for a in data["annotations"] if pictures and a["image_id"] == pictures[0]["id"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        kind = type(error).__name__
        raise InputError(
            f"{path}: not a COCO file with images and annotations ({kind}: {error})"
        ) from None
    if len(pictures) != 1:
        raise InputError(f"{path}: {len(pictures)} pictures named {file_name!r}, expected 1")
    drawn_on = (pictures[0].get("width", size[0]), pictures[0].get("height", size[1]))
    if drawn_on != size:
        raise InputError(
            f"{path}: {file_name} is {drawn_on[0]}×{drawn_on[1]} there, the picture is "
            f"{size[0]}×{size[1]}; they must have the same size (a picture with EXIF rotation "
            "counts upright)"
        )
    return annotations


def draw(
    source: dict[str, Any] | list[Any], size: tuple[int, int], most: int, crowd: int
) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Annotations → ids (H, W) int32: `category_id`, 1 where there is none.

    A smaller object lies over a larger one.

    Args:
        size: (width, height).
        most: the largest id.
        crowd: what `iscrowd` becomes.

    Raises:
        InputError: see `decode_rle`; the annotation's number is named.
    """
    annotations = [source] if isinstance(source, dict) else source
    if isinstance(source, dict) and "annotations" in source:
        raise InputError("a whole COCO file; pass its path, or the annotations of one picture")
    pictures = {str(a["image_id"]) for a in annotations if isinstance(a, dict) and "image_id" in a}
    if len(pictures) > 1:
        raise InputError(f"COCO annotations of {len(pictures)} pictures; pass those of one")
    return layered(_drawn(annotations, size, most, crowd), size)


def _drawn(
    annotations: list[Any], size: tuple[int, int], most: int, crowd: int
) -> Iterator[tuple[np.ndarray[Any, np.dtype[np.bool_]], int]]:
    """Masks of annotations with their ids."""
    for index, annotation in enumerate(annotations):
        if not isinstance(annotation, dict):
            raise InputError(f"COCO annotation {index} is a {type(annotation).__name__}, no dict")
        try:
            mask = decode_rle(annotation.get("segmentation", annotation), size)
        except InputError as error:
            raise InputError(f"COCO annotation {index}: {error}") from None
        label = annotation.get("category_id", 1)
        if not is_whole(label) or not 1 <= label <= most:
            raise InputError(
                f"COCO annotation {index}: category_id {label!r}; accepted: integers 1 … {most}"
            )
        yield mask, crowd if annotation.get("iscrowd") else label


def layered(
    drawn: Iterable[tuple[np.ndarray[Any, np.dtype[np.bool_]], int]], size: tuple[int, int]
) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Masks (H, W) with their ids → ids (H, W) int32, a smaller object over a larger one.

    An id that is hidden altogether is warned of.
    """
    parts = []
    for mask, label in drawn:  # only what is in its box is kept: there may be thousands
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


def decode_rle(rle: Any, size: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """COCO polygons or run-length encoding → (H, W) bool, by faster-coco-eval.

    Raises:
        InputError: the package is missing, malformed data, another size than (width, height).
    """
    coco = check_coding()
    width, height = size
    _check_segmentation(rle, size)
    try:
        if isinstance(rle, dict) and not isinstance(rle.get("counts"), list):
            counts = rle["counts"]
            packed = counts.encode() if isinstance(counts, str) else counts
            return _decode_compressed(packed, height, width)
        encoded = coco.frPyObjects(rle, height, width)
        merged = coco.merge(encoded) if isinstance(encoded, list) else encoded
        return np.asarray(coco.decode(merged), bool)
    except InputError:
        raise
    except Exception as error:  # the extension raises what its C++ code happens to raise
        raise InputError(f"malformed segmentation ({type(error).__name__}: {error})") from None


def encode_rle(mask: np.ndarray[Any, np.dtype[np.bool_]]) -> dict[str, Any]:
    """(H, W) bool → {"size": [H, W], "counts": text}, which `decode_rle` reads.

    Raises:
        InputError: the package is missing.
    """
    rle = check_coding().encode(np.asfortranarray(mask.astype(np.uint8)))
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
            raise InputError("neither segmentation nor counts in it; accepted: polygons or RLE")
        wanted = rle.get("size")
        if not isinstance(wanted, (list, tuple)) or list(wanted) != [height, width]:
            raise InputError(f"RLE of size {wanted} (height, width); expected [{height}, {width}]")
        runs = rle["counts"]
        if isinstance(runs, list) and (
            not all(is_whole(n) and n >= 0 for n in runs) or sum(runs) != width * height
        ):
            raise InputError("RLE runs must be whole numbers whose sum is width · height")
        if not isinstance(runs, (list, str, bytes)):
            raise InputError(f"RLE counts are a {type(runs).__name__}; accepted: list, text, bytes")
    elif not (isinstance(rle, list) and rle and all(_is_polygon(p, size) for p in rle)):
        raise InputError(
            "segmentation must be RLE, or a list of polygons [x, y, x, y, …] of six numbers or "
            "more, none farther outside the picture than its width and height"
        )


def _is_polygon(points: Any, size: tuple[int, int]) -> bool:
    # The C++ code takes memory for every pixel of an outline, also outside the picture.
    return (
        isinstance(points, list)
        and len(points) >= 6
        and len(points) % 2 == 0
        and all(isinstance(p, (int, float, np.number)) for p in points)
        and all(-size[i % 2] <= p <= 2 * size[i % 2] for i, p in enumerate(points))
    )


def _decode_compressed(packed: bytes, height: int, width: int) -> np.ndarray[Any, Any]:
    """Compressed counts → mask; the runs are summed first, since the C++ decoder trusts them."""
    coco = check_coding()
    total, value, shift, runs = 0, 0, 0, list[int]()
    for byte in packed:
        code = byte - 48
        if not 0 <= code < 64:
            raise InputError(f"RLE counts hold the byte {byte}, outside 48 … 111")
        value |= (code & 31) << shift
        shift += 5
        if shift > 60:  # more than the decoder's integers hold
            raise InputError("RLE counts hold a run of endless length")
        if not code & 32:
            value -= (1 << shift) if code & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            total, value, shift = total + runs[-1], 0, 0
    if shift:
        raise InputError("RLE counts end within a run")
    if total != height * width or min(runs, default=0) < 0:
        raise InputError(f"RLE runs cover {total} pixels; expected {height * width}")
    return np.asarray(coco.decode({"size": [height, width], "counts": packed}), bool)
