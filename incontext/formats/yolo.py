"""YOLO segmentation: images/NAME, labels/NAME.txt with a polygon a line, and data.yaml."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from incontext.errors import InputError, ShapeError, first_line, located, parse_whole
from incontext.files import read_text
from incontext.formats.annotated_image import (
    AnnotatedImage,
    Size,
    check_unique_ids,
    exists,
    image_files,
)
from incontext.formats.output import check_not_source, place_image
from incontext.formats.polygons import Mask, polygons
from incontext.formats.results import LabelledImage
from incontext.images.image import read_image
from incontext.inference.segmentation import write_image, write_text
from incontext.labels.coco import decode_rle, drawable, layered
from incontext.labels.color_mask import MAX_ID
from incontext.labels.encodings import IdMap

# What ultralytics looks for; images of another format are written as PNG.
SUFFIXES = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"))
SPLITS = ("train", "val", "test")
TOLERANCE = 0.01  # what ultralytics accepts outside 0–1
IMAGES = "images"


def write(results: Iterable[LabelledImage], out: Path) -> Path:
    """Write one line for each part of an object: its class, then corners as shares of the sides.

    Classes are 0, 1, … in the order of the ids; `ids` in data.yaml keeps those. Images without an
    object get an empty file. Images are linked, or written upright. Six decimals tell corners apart
    in images of up to 500 000 pixels a side.

    Raises:
        InputError: SciPy is missing, or an image is gone.
        OSError: it cannot be written.
    """
    names: dict[int, str] = {}
    for result in results:
        names |= result.names
        classes = {index: number for number, index in enumerate(sorted(result.names))}
        height, width = result.labels.shape
        lines = []
        for index, mask in sorted(result.masks(), key=lambda pair: pair[0]):
            for ring in polygons(mask):
                corners = " ".join(f"{x / width:.6f} {y / height:.6f}" for x, y in ring.tolist())
                lines.append(f"{classes[index]} {corners}\n")
        image = _place_image(result, out)
        write_text(out / label_path(image.relative_to(out)), "".join(lines))
    (out / IMAGES).mkdir(parents=True, exist_ok=True)
    ids = sorted(names)
    name_lines = [f"  {number}: {_quote(names[i])}" for number, i in enumerate(ids)]
    id_lines = [f"  {number}: {i}" for number, i in enumerate(ids)]
    text = "\n".join(["train: images", "val: images", "names:", *name_lines, "ids:", *id_lines])
    return write_text(out / "data.yaml", f"{text}\n")


def _quote(name: str) -> str:
    """Return a name as a quoted text of YAML, which has no surrogate pairs as JSON has."""
    import yaml  # type: ignore[import-untyped]

    return str(yaml.safe_dump(name, default_style='"', width=2**31).rstrip("\n"))


def _place_image(result: LabelledImage, out: Path) -> Path:
    if result.source.suffix.lower() in SUFFIXES:
        return place_image(result.source, out / IMAGES / result.name)
    path = out / IMAGES / f"{result.name}.png"
    check_not_source(path, result.source)
    write_image(read_image(result.source), path)
    return path


def label_path(image: PurePath) -> PurePath:
    """Return where the labels of an image are: the last folder `images` becomes `labels`."""
    parts = list(image.parts)
    positions = [number for number, part in enumerate(parts[:-1]) if part == "images"]
    if positions:
        parts[positions[-1]] = "labels"
    return PurePath(*parts).with_suffix(".txt")


def read(path: Path, images: Path | None) -> Iterator[AnnotatedImage]:
    """Yield every image of the splits that data.yaml names, or of `images`.

    An image without a label file is all background, as the format has it. Ids are classes plus one,
    unless data.yaml has `ids`.

    Raises:
        InputError: no data.yaml, a split that is gone or lies outside, no image at all.
    """
    data = _DataFile.read(path)
    paths = image_files(images) if images else data.image_paths()
    if not paths:
        raise InputError(f"{data.path}: no picture in its folders")
    names = {data.ids[number]: name for number, name in data.names.items()}
    for image in paths:
        read_labels = partial(_draw, Path(label_path(image)), data.ids)
        yield AnnotatedImage(str(image), image, read_labels, names)


def _draw(path: Path, ids: dict[int, int], size: Size) -> IdMap:
    def read_line(number: int, line: str) -> tuple[Mask, int]:
        with located(f"{path} line {number}"):
            index, corners = _parse_line(line, ids)
            return decode_rle([[p * size[i % 2] for i, p in enumerate(corners)]], size), index

    lines = read_text(path).splitlines() if path.is_file() else []
    filled = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    return layered(drawable(filled, read_line), size)


def _parse_line(line: str, ids: dict[int, int]) -> tuple[int, list[float]]:
    """Return the id and the corners x, y, x, y, … in 0–1."""
    class_text, *numbers = line.split()
    try:
        corners = [float(number) for number in numbers]
    except ValueError as error:
        raise ShapeError(f"{line.strip()[:40]!r}: {first_line(error)}; accepted: numbers") from None
    if len(corners) == 4:
        raise InputError("a box; accepted: outlines, a class and three points or more")
    if len(corners) < 6 or len(corners) % 2:
        raise ShapeError(
            f"{len(corners)} numbers after the class; accepted: x y of 3 points or more"
        )
    if not all(-TOLERANCE <= p <= 1 + TOLERANCE for p in corners):
        raise ShapeError("points outside 0 … 1; they are shares of width and height")
    number = parse_whole("class", class_text, 0, MAX_ID)
    if number not in ids:
        raise InputError(f"class {class_text}; data.yaml names {min(ids)} … {max(ids)}")
    return ids[number], [min(max(p, 0.0), 1.0) for p in corners]


@dataclass(frozen=True)
class _DataFile:
    """data.yaml: names and ids of classes, and where the images of the splits are."""

    path: Path
    names: dict[int, str]
    ids: dict[int, int]
    splits: list[str]

    @classmethod
    def read(cls, path: Path) -> "_DataFile":
        import yaml

        if path.is_dir():
            path = next(iter(data_files(path)), path / "data.yaml")
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        try:
            content = yaml.safe_load(read_text(path))
            names = {i: _class_name(n) for i, n in _by_class(content["names"]).items()}
            ids = _by_class(content.get("ids", {i: i + 1 for i in names}))
            ids = {n: parse_whole("ids", index, 1, MAX_ID) for n, index in ids.items()}
            root = str(content.get("path") or "")
            splits = [entry for split in SPLITS for entry in _as_list(content.get(split))]
            if names.keys() != ids.keys() or not names:
                raise ValueError("ids and names of other classes, or none")
        except (
            yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError, RecursionError,
        ) as error:  # fmt: skip
            raise InputError(
                f"{path}: not a data.yaml with names and train ({first_line(error)})"
            ) from None
        unique = len(set(names.values())) == len(names)
        by_name = {names[i] if unique else str(i): index for i, index in ids.items()}
        check_unique_ids(by_name, str(path))
        # What another machine calls the folder means nothing here.
        inside = not Path(root).is_absolute() and exists(path.parent / root)
        return cls(path, names, ids, [f"{root}/{s}" if root and inside else s for s in splits])

    def image_paths(self) -> list[Path]:
        """Return the images of all splits, each once, in order."""
        paths: dict[Path, None] = {}
        for split in self.splits:
            place = self._resolve(split)
            if place.suffix == ".txt":
                lines = read_text(place).splitlines()
                listing = [self._resolve(line.strip()) for line in lines if line.strip()]
            else:
                listing = image_files(place) if place.is_dir() else [place]
            paths |= dict.fromkeys(listing)
        return list(paths)

    def _resolve(self, entry: str) -> Path:
        """Return a folder or file that data.yaml names, inside its own folder."""
        root = self.path.parent
        # Some tools write ../train/images and mean train/images, as ultralytics knows.
        entry = entry.replace("\\", "/")
        for text in (entry, entry.removeprefix("../")):
            path = os.path.normpath(text)
            if not path.startswith("..") and not Path(path).is_absolute():
                if exists(root / path):
                    return root / path
            elif Path(path).is_absolute() and Path(path).is_relative_to(root.absolute()):
                return Path(path)
        raise InputError(
            f"{self.path}: {entry!r:.200} is not in {root}; pass the folder that holds it, or "
            "pictures with images= (--images)"
        )


def data_files(folder: Path) -> list[Path]:
    """Return the files of a folder that may be its data.yaml."""
    return [
        path for name in ("data.yaml", "dataset.yaml", "data.yml")
        if (path := folder / name).is_file()
    ]  # fmt: skip


def _by_class(values: Any) -> dict[int, Any]:
    """Return values by class; a list counts from 0."""
    pairs = enumerate(values) if isinstance(values, list) else values.items()
    return {parse_whole("class", number, 0, MAX_ID): value for number, value in pairs}


def _class_name(value: Any) -> str:
    if not isinstance(value, (str, int, float)):
        raise ValueError(f"name {value!r:.60}; accepted: text")
    return str(value)


def _as_list(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(v) for v in value] if isinstance(value, list) else [str(value)]
