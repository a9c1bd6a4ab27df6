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

import numpy as np

from incontext.errors import InputError, first_line
from incontext.formats.annotated_image import (
    Folder,
    Found,
    Size,
    numbered,
    once,
    pictures_of,
    rgb_of,
)
from incontext.formats.brush_rle import decode, encode
from incontext.formats.overwrite_guard import SIGN, check_file
from incontext.formats.results import Labelled
from incontext.inference.segmentation import write_text
from incontext.labels.coco import decode_rle, layered
from incontext.labels.color_mask import Rgb
from incontext.labels.encodings import IdMap

FROM, TO = "label", "image"  # names in the labelling configuration
REGIONS = ("brushlabels", "polygonlabels")
SAID = ("choices", "number", "pairwise", "rating", "relation", "taxonomy", "textarea")  # no region
# What Label Studio exports keeps our predictions, but begins otherwise.
START = (
    r'\[\]$|\[\{"data": \{"image": "(?:[^"\\]|\\.)*"\}, '
    r'"predictions": \[\{"model_version": "incontext"'
)
HEAD = f"<!-- {SIGN} -->\n"  # of the configuration
UPLOADED = re.compile(r"[0-9a-f]{8}-")


def write(results: Iterable[Labelled], out: Path) -> Path:
    """A JSON file to import, with one prediction a picture; its masks are `brushlabels`.

    The labelling configuration that it fits is written beside it, as NAME.config.xml.

    Raises:
        InputError: other files are there.
        OSError: it cannot be written.
    """
    beside = out.with_suffix(".config.xml")
    check_file(out, START)
    check_file(beside, re.escape(HEAD))
    tasks, names, colors = list[Any](), dict[int, str](), dict[int, Rgb]()
    for one in results:
        names |= one.names
        colors |= one.colors
        height, width = one.labels.shape
        found = [
            {
                "id": f"{one.name}-{index}", "type": "brushlabels", "from_name": FROM,
                "to_name": TO, "original_width": width, "original_height": height,
                "image_rotation": 0, "score": one.presence[index],
                "value": {
                    "format": "rle", "rle": encode(one.labels == index),
                    "brushlabels": [one.names[index]],
                },
            }
            for index in one.presence
            if (one.labels == index).any()
        ]  # fmt: skip
        score = max((one.presence[i] for i in one.presence), default=0.0)
        tasks.append({
            "data": {"image": str(one.source)},
            "predictions": [{"model_version": "incontext", "score": score, "result": found}],
        })  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(beside, HEAD + config(names, colors))
    return write_text(out, json.dumps(tasks))


def config(names: Mapping[int, str], colors: Mapping[int, Rgb]) -> str:
    """The labelling configuration for pictures with these classes; `category` is the id, which
    Label Studio takes over into what it exports as COCO."""
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


def read(path: Path, images: Path | None) -> Iterator[Found]:
    """Every task of a JSON export that has an annotation, or else a prediction; others are left
    out. Brushes and polygons; ids are the `category` of labels in NAME.config.xml beside it, or
    the order of labels there, or else their alphabetical order.

    Raises:
        InputError: no such file, a task with several annotations, a picture that is not found.
    """
    try:
        tasks = list(json.loads(path.read_text(encoding="utf-8")))
        marked = [(n, dict(task["data"]), _regions(task)) for n, task in enumerate(tasks, 1)]
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path}: not a JSON export of Label Studio ({type(error).__name__}: "
            f"{first_line(error)})"
        ) from None
    done = [(n, data, regions) for n, data, regions in marked if regions is not None]
    folder = pictures_of(path, images)
    used = {name for _, _, regions in done for r in regions for name in _names(r)}
    ids, colors = _config(path.with_suffix(".config.xml"), used)
    names = {index: name for name, index in ids.items()}
    for number, data, regions in done:
        where = f"{path}: task {number}"
        try:
            picture = _picture(data, folder)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        where = f"{where} ({picture.name})"
        yield Found(where, picture, partial(_draw, regions, ids), names, colors)


def _regions(task: dict[str, Any]) -> list[dict[str, Any]] | None:
    """What was marked in a task; None: nobody has looked at it.

    Raises:
        InputError: several have.
    """
    for key in ("annotations", "predictions"):
        given = [a for a in task.get(key) or [] if not a.get("was_cancelled")]
        true = [a for a in given if a.get("ground_truth")] or given
        if len(true) > 1:
            raise InputError(f"task {task.get('id', task['data'])}: {len(true)} {key}; keep one")
        if true:
            return [dict(r) for r in true[0]["result"] if r.get("type") not in SAID]
    return None


def _names(region: dict[str, Any]) -> list[str]:
    return list(region["value"].get(region.get("type"), []))


def _config(path: Path, used: set[str]) -> tuple[dict[str, int], dict[int, Rgb]]:
    """Ids by name, colors by id, of a labelling configuration; in order where there is none."""
    if not path.is_file():
        ids = numbered(used)
        listed = ", ".join(f"{index} {name}" for name, index in ids.items())
        warnings.warn(
            f"no {path.name} beside the tasks, so ids follow the alphabet: {listed}; put the "
            "labelling configuration there to have its order",
            stacklevel=2,
        )
        return ids, {}
    try:
        labels = [one for one in ElementTree.parse(path).iter("Label") if one.get("value")]
        said = [one.get("category") for one in labels]
        whole = all(number is not None and number.isdecimal() for number in said)
        ids = {
            str(one.get("value")): int(str(number)) if whole else order
            for order, (one, number) in enumerate(zip(labels, said, strict=True), 1)
        }
        colors = {
            ids[str(one.get("value"))]: rgb
            for one in labels
            if (rgb := rgb_of(one.get("background", "")))
        }
    except (ElementTree.ParseError, InputError) as error:
        raise InputError(f"{path}: no labelling configuration ({first_line(error)})") from None
    strange = sorted(used - ids.keys())
    if strange:
        raise InputError(f"{path}: label {strange[0]!r} is used, but is not in it")
    return once(ids, str(path)), colors


def _picture(data: dict[str, Any], folder: Folder) -> Path:
    """The picture of a task, by the end of its address; uploads have 8 digits in front."""
    address = next((v for v in (data.get("image"), *data.values()) if isinstance(v, str)), None)
    if address is None:
        raise InputError(f"no picture among {sorted(data)}")
    parts = urlsplit(address)
    local = parts.query.startswith("d=")  # a file below a folder that only the server knows
    said = unquote(f"/{parts.query.removeprefix('d=')}" if local else parts.path)
    try:
        return folder.find(said)
    except InputError:
        name = Path(said).name
        if not UPLOADED.match(name):
            raise
        return folder.find(f"/{UPLOADED.sub('', name)}")


def _draw(regions: list[dict[str, Any]], ids: dict[str, int], size: Size) -> IdMap:
    return layered(_masks(regions, ids, size), size)


def _masks(
    regions: list[dict[str, Any]], ids: dict[str, int], size: Size
) -> Iterator[tuple[Any, int]]:
    for number, region in enumerate(regions, 1):
        try:
            names = _names(region)
            if region.get("type") not in REGIONS:
                raise InputError(f"{region.get('type')}; accepted: brushlabels, polygonlabels")
            if len(names) != 1:
                raise InputError(f"labels {names}; accepted: one a region")
            yield _mask(region, size), ids[names[0]]
        except InputError as error:
            raise InputError(f"region {region.get('id', number)}: {error}") from None
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"region {region.get('id', number)}: {type(error).__name__} {first_line(error)}"
            ) from None


def _mask(region: dict[str, Any], size: Size) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    given = (int(region["original_width"]), int(region["original_height"]))
    if given != size:
        raise InputError(
            f"{given[0]}×{given[1]}, its picture is {size[0]}×{size[1]} (upright, where EXIF "
            "rotates it)"
        )
    if region.get("image_rotation"):
        raise InputError(f"image_rotation {region['image_rotation']}; accepted: 0")
    value = region["value"]
    if region["type"] == "brushlabels":
        return decode(list(value["rle"]), (size[1], size[0]))
    flat = [float(p) * size[i % 2] / 100 for point in value["points"] for i, p in enumerate(point)]
    return decode_rle([flat], size)
