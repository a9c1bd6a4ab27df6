"""Label Studio: tasks with predictions, masks as brush RLE."""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from incontext.errors import InputError, ShapeError, explain_parsing, located, parse_whole
from incontext.formats.annotated_image import (
    AnnotatedImage,
    ImageFolder,
    Size,
    image_folder,
)
from incontext.formats.brush_rle import decode, encode
from incontext.formats.label_studio_config import (
    FROM,
    TO,
    LabellingConfig,
    config_path,
    labelling_config,
)
from incontext.formats.output import check_text
from incontext.formats.polygons import Mask
from incontext.formats.results import LabelledImage
from incontext.images.folder import SUFFIXES
from incontext.inference.segmentation import rate_labels, write_text
from incontext.labels.coco import decode_rle, drawable, layered
from incontext.labels.color_mask import Rgb
from incontext.labels.encodings import IdMap

REGIONS = ("brushlabels", "polygonlabels")
ORIGINAL_SIZE = ("original_width", "original_height")
# Annotations of the whole task, which mark no region.
TASK_LEVEL = ("choices", "number", "pairwise", "rating", "relation", "taxonomy", "textarea")
UPLOAD_PREFIX = re.compile(r"[0-9a-f]{8}-")


def write(results: Iterable[LabelledImage], out: Path) -> Path:
    """Write a JSON file to import, with one prediction an image; its masks are `brushlabels`.

    The labelling configuration that fits it is written to `config_path`.

    Raises:
        OSError: it cannot be written.
    """
    tasks, names, colors = list[Any](), dict[int, str](), dict[int, Rgb]()
    for result in results:
        names |= {i: check_text(name, "name", xml=True) for i, name in result.names.items()}
        colors |= result.colors
        height, width = result.labels.shape
        regions = [
            {
                "id": f"{result.name}-{index}", "type": "brushlabels", "from_name": FROM,
                "to_name": TO, "original_width": width, "original_height": height,
                "image_rotation": 0, "score": result.presence[index],
                "value": {
                    "format": "rle", "rle": encode(mask), "brushlabels": [result.names[index]],
                },
            }
            for index, mask in result.masks()
        ]  # fmt: skip
        # Label Studio sorts tasks by the score: the one whose worst mask is the worst comes first.
        score = rate_labels(result.labels, result.presence, result.quality)
        tasks.append({
            "data": {"image": str(result.source)},
            "predictions": [{"model_version": "incontext", "score": score, "result": regions}],
        })  # fmt: skip
    write_text(config_path(out), labelling_config(names, colors))
    return write_text(out, json.dumps(tasks))


def read(path: Path, images: Path | None) -> Iterator[AnnotatedImage]:
    """Yield the images of every task of a JSON export that has an annotation, or else a prediction.

    Tasks without either are left out. Ids are the `category` of the labels in the configuration at
    `config_path`, else the order of the labels there, else the alphabetical order of the labels in
    use. Of a task with several images each gets the regions whose `to_name` it is.

    Raises:
        InputError: no such file, a task with several annotations, an image that is not found,
            regions of which it is not known whose they are.
    """
    with explain_parsing(path, "a JSON export of Label Studio"):
        entries = list(json.loads(path.read_bytes()))
        tasks = [(n, dict(task["data"]), _regions(task)) for n, task in enumerate(entries, 1)]
    labelled_tasks = [(n, data, regions) for n, data, regions in tasks if regions is not None]
    folder = image_folder(path, images)
    used_names = {
        name for _, _, regions in labelled_tasks for region in regions for name in _names(region)
    }
    config = LabellingConfig.read(config_path(path), used_names)
    names = {index: name for name, index in config.ids.items()}
    for number, data, regions in labelled_tasks:
        with located(f"{path}: task {number}"):
            parts = [
                (_find_image(address, folder), own)
                for address, own in _by_image(data, regions, config.images)
            ]
        for image, own in parts:
            location = f"{path}: task {number} ({image.name})"
            read_labels = partial(_draw, own, config.ids)
            yield AnnotatedImage(location, image, read_labels, names, config.colors)


def _regions(task: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Return the regions marked in a task; None if nobody has annotated it.

    Raises:
        InputError: several annotations.
    """
    for key in ("annotations", "predictions"):
        results = [a for a in task.get(key) or [] if not a.get("was_cancelled")]
        results = [a for a in results if a.get("ground_truth")] or results
        if len(results) > 1:
            number = task.get("id", task["data"])
            raise InputError(f"task {number!r:.60}: {len(results)} {key}; keep one")
        if results:
            regions = [dict(region) for region in results[0]["result"]]
            return [region for region in regions if region.get("type") not in TASK_LEVEL]
    return None


def _names(region: dict[str, Any]) -> list[str]:
    """Return the labels of a region; none where they are no list of texts."""
    value, kind = region.get("value"), region.get("type")
    names = value.get(kind) if isinstance(value, dict) and isinstance(kind, str) else None
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _by_image(
    data: dict[str, Any], regions: list[dict[str, Any]], images: dict[str, str]
) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the address of each labelled image of a task, and the regions in it.

    Args:
        images: those of the configuration, see `LabellingConfig`; empty without one.

    Raises:
        InputError: no image, or regions of which it is not known whose they are.
    """
    addresses = {key: value for key, value in data.items() if isinstance(value, str)}
    by_suffix = {k: v for k, v in addresses.items() if _path(v).suffix.lower() in SUFFIXES}
    addresses = by_suffix or addresses
    targets = {str(r["to_name"]) for r in regions if r.get("to_name") is not None}
    if images:
        keys = {name: key for name, key in images.items() if isinstance(data.get(key), str)}
    elif len(addresses) == 1 and len(targets) < 2:
        keys = dict.fromkeys(targets or {""}, next(iter(addresses)))
    else:
        keys = {name: name for name in targets if name in addresses}
    if not addresses or (images and not keys):
        raise InputError(f"no picture among {sorted(data)}")
    unclear = targets - keys.keys()
    if unclear or not keys or (len(keys) > 1 and any(r.get("to_name") is None for r in regions)):
        raise InputError(
            f"regions of {', '.join(sorted(unclear)) or 'no name'}; its pictures are "
            f"{', '.join(keys if images else addresses)}: the labelling configuration, "
            "NAME.config.xml beside NAME.json, must say which is which"
        )
    only = next(iter(keys))
    return [
        (data[key], [r for r in regions if str(r.get("to_name") or only) == name])
        for name, key in sorted(keys.items())
    ]


def _path(address: str) -> PurePosixPath:
    """Return the path in an address, as it is on the server that the address is of."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return PurePosixPath(address)
    local = parts.query.startswith("d=")  # a file below a folder that only the server knows
    path = unquote(f"/{parts.query.removeprefix('d=')}" if local else parts.path)
    return PurePosixPath(path.replace("\\", "/"))


def _find_image(address: str, folder: ImageFolder) -> Path:
    """Return the image at the end of an address; uploads have 8 digits in front of the name."""
    path = _path(address)
    # A path, such as our own export has, where # and % mean themselves.
    if "://" not in address and "?d=" not in address and ".." not in path.parts:
        with suppress(InputError):
            return folder.find(address)
    try:
        return folder.find(str(path))
    except InputError:
        if ".." in path.parts or not UPLOAD_PREFIX.match(path.name):
            raise
        return folder.find(f"/{UPLOAD_PREFIX.sub('', path.name)}")


def _draw(regions: list[dict[str, Any]], ids: dict[str, int], size: Size) -> IdMap:
    def read_region(number: int, region: dict[str, Any]) -> tuple[Mask, int]:
        name = str(region.get("id", number))[:60]
        with located(f"region {name}"):
            return _read_region(region, ids, size)

    return layered(drawable(enumerate(regions, 1), read_region), size)


def _read_region(region: dict[str, Any], ids: dict[str, int], size: Size) -> tuple[Mask, int]:
    kind, value = region.get("type"), region.get("value")
    if kind not in REGIONS:
        raise InputError(f"{kind!r:.60}; accepted: {', '.join(REGIONS)}")
    if not isinstance(value, dict):
        raise ShapeError(f"value {value!r:.60}; accepted: an outline or a brush with its label")
    if region.get("item_index"):
        raise InputError("of a list of pictures (item_index); accepted: tasks of single pictures")
    original = [parse_whole(k, region.get(k), 1) for k in ORIGINAL_SIZE]
    if tuple(original) != size:
        raise InputError(
            f"{original[0]}×{original[1]}, its picture is {size[0]}×{size[1]} (upright, where EXIF "
            "rotates it)"
        )
    if str(region.get("image_rotation") or 0) not in ("0", "0.0"):
        raise InputError(f"image_rotation {region['image_rotation']!r:.60}; accepted: 0")
    names = _names(region)
    if len(names) != 1:
        raise InputError(f"labels {names}; accepted: one a region")
    read_shape = _read_brush if kind == "brushlabels" else _read_polygon
    return read_shape(value, size), ids[names[0]]


def _read_brush(value: dict[str, Any], size: Size) -> Mask:
    rle = value.get("rle")
    if not isinstance(rle, list):
        raise ShapeError(f"rle {rle!r:.60}; accepted: a list of bytes")
    return decode(rle, (size[1], size[0]))


def _read_polygon(value: dict[str, Any], size: Size) -> Mask:
    try:
        points = [(float(x), float(y)) for x, y in value["points"]]
    except (KeyError, TypeError, ValueError, OverflowError):
        text = repr(value.get("points"))[:60]
        raise ShapeError(f"points {text}; accepted: a list of [x, y] in percent") from None
    return decode_rle(
        [[p * side / 100 for xy in points for p, side in zip(xy, size, strict=True)]], size
    )
