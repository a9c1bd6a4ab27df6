"""Label Studio: tasks with predictions, masks as brush RLE."""

import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

from incontext.errors import InputError, first_line
from incontext.formats.annotated_image import (
    AnnotatedImage,
    ImageFolder,
    Size,
    alphabetical_ids,
    check_unique_ids,
    image_folder,
    parse_hex_color,
)
from incontext.formats.brush_rle import decode, encode
from incontext.formats.output import GENERATOR
from incontext.formats.polygons import Mask
from incontext.formats.results import LabelledImage
from incontext.inference.segmentation import write_text
from incontext.labels.coco import decode_rle, layered
from incontext.labels.color_mask import Rgb
from incontext.labels.encodings import IdMap

FROM, TO = "label", "image"  # names in the labelling configuration
REGIONS = ("brushlabels", "polygonlabels")
# Annotations of the whole task, which mark no region.
TASK_LEVEL = ("choices", "number", "pairwise", "rating", "relation", "taxonomy", "textarea")
HEAD = f"<!-- {GENERATOR} -->\n"  # of the configuration
UPLOAD_PREFIX = re.compile(r"[0-9a-f]{8}-")


def config_path(tasks: Path) -> Path:
    """Return where the labelling configuration of a file of tasks is: NAME.config.xml beside it."""
    return tasks.with_suffix(".config.xml")


def write(results: Iterable[LabelledImage], out: Path) -> Path:
    """Write a JSON file to import, with one prediction an image; its masks are `brushlabels`.

    The labelling configuration that fits it is written to `config_path`.

    Raises:
        OSError: it cannot be written.
    """
    tasks, names, colors = list[Any](), dict[int, str](), dict[int, Rgb]()
    for result in results:
        names |= result.names
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
        score = max(result.presence.values(), default=0.0)
        tasks.append({
            "data": {"image": str(result.source)},
            "predictions": [{"model_version": "incontext", "score": score, "result": regions}],
        })  # fmt: skip
    write_text(config_path(out), HEAD + labelling_config(names, colors))
    return write_text(out, json.dumps(tasks))


def labelling_config(names: Mapping[int, str], colors: Mapping[int, Rgb]) -> str:
    """Return the labelling configuration for images with these classes.

    `category` is the id, which Label Studio takes over into what it exports as COCO.
    """
    from xml.sax.saxutils import quoteattr

    labels = "".join(
        f'    <Label value={quoteattr(names[i])} category="{i}"'
        + (' background="#{:02x}{:02x}{:02x}"'.format(*colors[i]) if i in colors else "")
        + "/>\n"
        for i in sorted(names)
    )
    return (
        f'<View>\n  <Image name="{TO}" value="$image" zoom="true"/>\n'
        f'  <BrushLabels name="{FROM}" toName="{TO}">\n{labels}  </BrushLabels>\n</View>\n'
    )


def read(path: Path, images: Path | None) -> Iterator[AnnotatedImage]:
    """Yield every task of a JSON export that has an annotation, or else a prediction.

    Tasks without either are left out. Ids are the `category` of the labels in the configuration at
    `config_path`, else the order of the labels there, else the alphabetical order of the labels in
    use.

    Raises:
        InputError: no such file, a task with several annotations, an image that is not found.
    """
    try:
        entries = list(json.loads(path.read_text(encoding="utf-8")))
        tasks = [(n, dict(task["data"]), _regions(task)) for n, task in enumerate(entries, 1)]
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path}: not a JSON export of Label Studio ({type(error).__name__}: "
            f"{first_line(error)})"
        ) from None
    labelled_tasks = [(n, data, regions) for n, data, regions in tasks if regions is not None]
    folder = image_folder(path, images)
    used_names = {
        name for _, _, regions in labelled_tasks for region in regions for name in _names(region)
    }
    ids, colors = _read_config(config_path(path), used_names)
    names = {index: name for name, index in ids.items()}
    for number, data, regions in labelled_tasks:
        location = f"{path}: task {number}"
        try:
            image = _find_image(data, folder)
        except InputError as error:
            raise InputError(f"{location}: {error}") from None
        location = f"{location} ({image.name})"
        yield AnnotatedImage(location, image, partial(_draw, regions, ids), names, colors)


def _regions(task: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Return the regions marked in a task; None if nobody has annotated it.

    Raises:
        InputError: several annotations.
    """
    for key in ("annotations", "predictions"):
        results = [a for a in task.get(key) or [] if not a.get("was_cancelled")]
        results = [a for a in results if a.get("ground_truth")] or results
        if len(results) > 1:
            raise InputError(f"task {task.get('id', task['data'])}: {len(results)} {key}; keep one")
        if results:
            return [dict(r) for r in results[0]["result"] if r.get("type") not in TASK_LEVEL]
    return None


def _names(region: dict[str, Any]) -> list[str]:
    return list(region["value"].get(region.get("type"), []))


def _read_config(path: Path, used_names: set[str]) -> tuple[dict[str, int], dict[int, Rgb]]:
    """Return ids by name and colors by id of a labelling configuration, if there is one."""
    if not path.is_file():
        ids = alphabetical_ids(used_names)
        text = ", ".join(f"{index} {name}" for name, index in ids.items())
        warnings.warn(
            f"no {path.name} beside the tasks, so ids follow the alphabet: {text}; put the "
            "labelling configuration there to have its order",
            stacklevel=2,
        )
        return ids, {}
    try:
        labels = [label for label in ElementTree.parse(path).iter("Label") if label.get("value")]
        categories = [label.get("category") for label in labels]
        numbered = all(number is not None and number.isdecimal() for number in categories)
        ids = {
            str(label.get("value")): int(str(number)) if numbered else order
            for order, (label, number) in enumerate(zip(labels, categories, strict=True), 1)
        }
        colors = {
            ids[str(label.get("value"))]: rgb
            for label in labels
            if (rgb := parse_hex_color(label.get("background", "")))
        }
    except (ElementTree.ParseError, InputError) as error:
        raise InputError(f"{path}: no labelling configuration ({first_line(error)})") from None
    undefined = sorted(used_names - ids.keys())
    if undefined:
        raise InputError(f"{path}: label {undefined[0]!r} is used, but is not in it")
    return check_unique_ids(ids, str(path)), colors


def _find_image(data: dict[str, Any], folder: ImageFolder) -> Path:
    """Return the image of a task, by the end of its address; uploads have 8 digits in front."""
    address = next((v for v in (data.get("image"), *data.values()) if isinstance(v, str)), None)
    if address is None:
        raise InputError(f"no picture among {sorted(data)}")
    parts = urlsplit(address)
    local = parts.query.startswith("d=")  # a file below a folder that only the server knows
    path = unquote(f"/{parts.query.removeprefix('d=')}" if local else parts.path)
    try:
        return folder.find(path)
    except InputError:
        name = Path(path).name
        if not UPLOAD_PREFIX.match(name):
            raise
        return folder.find(f"/{UPLOAD_PREFIX.sub('', name)}")


def _draw(regions: list[dict[str, Any]], ids: dict[str, int], size: Size) -> IdMap:
    return layered(_read_masks(regions, ids, size), size)


def _read_masks(
    regions: list[dict[str, Any]], ids: dict[str, int], size: Size
) -> Iterator[tuple[Mask, int]]:
    for number, region in enumerate(regions, 1):
        try:
            names = _names(region)
            if region.get("type") not in REGIONS:
                raise InputError(f"{region.get('type')}; accepted: brushlabels, polygonlabels")
            if len(names) != 1:
                raise InputError(f"labels {names}; accepted: one a region")
            yield _read_mask(region, size), ids[names[0]]
        except InputError as error:
            raise InputError(f"region {region.get('id', number)}: {error}") from None
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"region {region.get('id', number)}: {type(error).__name__} {first_line(error)}"
            ) from None


def _read_mask(region: dict[str, Any], size: Size) -> Mask:
    original = (int(region["original_width"]), int(region["original_height"]))
    if original != size:
        raise InputError(
            f"{original[0]}×{original[1]}, its picture is {size[0]}×{size[1]} (upright, where EXIF "
            "rotates it)"
        )
    if region.get("image_rotation"):
        raise InputError(f"image_rotation {region['image_rotation']}; accepted: 0")
    value = region["value"]
    if region["type"] == "brushlabels":
        return decode(list(value["rle"]), (size[1], size[0]))
    flat = [float(p) * size[i % 2] / 100 for point in value["points"] for i, p in enumerate(point)]
    return decode_rle([flat], size)
