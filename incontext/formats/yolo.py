"""YOLO segmentation: images/NAME, labels/NAME.txt with a polygon a line, and data.yaml."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from incontext.errors import InputError, first_line
from incontext.formats.annotated_image import Found, Size, once
from incontext.formats.links import link
from incontext.formats.polygons import polygons
from incontext.formats.results import Labelled
from incontext.images.image import SUFFIXES, read_image
from incontext.inference.segmentation import write_image, write_text
from incontext.labels.coco import decode_rle, layered
from incontext.labels.encodings import IdMap

# What ultralytics looks for; a picture of another kind is written as PNG.
KINDS = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"))
SPLITS = ("train", "val", "test")
BEYOND = 0.01  # what ultralytics tolerates outside 0–1


TAKEN = ("labels", "data.yaml")  # what `write` writes anew, beside pictures
PICTURES = "images"


def write(results: Iterable[Labelled], out: Path) -> Path:
    """One line for each part of an object: its class, then corners in shares of width and height.

    Classes are 0, 1 … in the order of the ids; `ids` in data.yaml keeps those. Pictures without an
    object get an empty file. Pictures are linked. Six decimals tell corners apart in pictures
    of up to 500 000 pixels a side.

    Raises:
        InputError: SciPy is missing, or a picture is gone.
        OSError: it cannot be written.
    """
    names: dict[int, str] = {}
    for one in results:
        names |= one.names
        order = {index: number for number, index in enumerate(sorted(one.names))}
        height, width = one.labels.shape
        lines = []
        for index in sorted(one.names):
            for ring in polygons(one.labels == index):
                shares = " ".join(f"{x / width:.6f} {y / height:.6f}" for x, y in ring.tolist())
                lines.append(f"{order[index]} {shares}")
        path = out / label_path(_picture(one, out).relative_to(out))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "".join(f"{line}\n" for line in lines))
    (out / PICTURES).mkdir(parents=True, exist_ok=True)
    order = {index: number for number, index in enumerate(sorted(names))}
    listed = [f"  {number}: {json.dumps(names[i])}" for i, number in order.items()]
    kept = [f"  {number}: {i}" for i, number in order.items()]
    text = "\n".join(["train: images", "val: images", "names:", *listed, "ids:", *kept])
    return write_text(out / "data.yaml", f"{text}\n")


def _picture(one: Labelled, out: Path) -> Path:
    path = out / PICTURES / f"{one.name}{one.source.suffix}"
    if path.suffix.lower() in KINDS:
        return link(one.source, path)
    path = out / PICTURES / f"{one.name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(read_image(one.source), path)
    return path


def label_path(picture: PurePath) -> PurePath:
    """Where the labels of a picture are: the last folder `images` becomes `labels`."""
    parts = list(picture.parts)
    at = [number for number, part in enumerate(parts[:-1]) if part == "images"]
    if at:
        parts[at[-1]] = "labels"
    return PurePath(*parts).with_suffix(".txt")


def read(path: Path, images: Path | None) -> Iterator[Found]:
    """Every picture of the splits that data.yaml names, or of `images`; one without a label file
    is all background, as the format has it. Ids are classes plus one, unless `ids` says them.

    Raises:
        InputError: no data.yaml, a split that is gone or lies outside, no picture at all.
    """
    said = _Said.read(path)
    pictures = _inside(images) if images else said.pictures()
    if not pictures:
        raise InputError(f"{said.path}: no picture in its folders")
    for picture in pictures:
        yield Found(
            str(picture), picture, partial(_draw, Path(label_path(picture)), said.ids),
            {said.ids[number]: name for number, name in said.names.items()},
        )  # fmt: skip


def _draw(path: Path, ids: dict[int, int], size: Size) -> IdMap:
    return layered(_masks(path, ids, size), size)


def _masks(path: Path, ids: dict[int, int], size: Size) -> Iterator[tuple[Any, int]]:
    lines = path.read_text(encoding="utf-8-sig").splitlines() if path.is_file() else []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            index, points = _row(line, ids)
            flat = [p * size[i % 2] for i, p in enumerate(points)]
            yield decode_rle([flat], size), index
        except (InputError, ValueError) as error:
            raise InputError(f"{path} line {number}: {first_line(error)}") from None


def _row(line: str, ids: dict[int, int]) -> tuple[int, list[float]]:
    """Id and shares x, y, x, y … in 0–1."""
    first, *rest = line.split()
    try:
        points = [float(part) for part in rest]
    except ValueError as error:
        raise InputError(f"{line.strip()[:40]!r}: {error}; accepted: numbers") from None
    if len(points) == 4:
        raise InputError("a box; accepted: outlines, a class and three points or more")
    if len(points) < 6 or len(points) % 2:
        raise InputError(
            f"{len(points)} numbers after the class; accepted: x y of 3 points or more"
        )
    if not all(-BEYOND <= p <= 1 + BEYOND for p in points):
        raise InputError("points outside 0 … 1; they are shares of width and height")
    if float(first) not in ids:
        raise InputError(f"class {first}; data.yaml names {min(ids)} … {max(ids)}")
    return ids[int(float(first))], [min(max(p, 0.0), 1.0) for p in points]


def _inside(folder: Path) -> list[Path]:
    """Pictures of a folder, to any depth."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)


@dataclass(frozen=True)
class _Said:
    """data.yaml: classes, their ids, and where pictures are."""

    path: Path
    names: dict[int, str]
    ids: dict[int, int]
    splits: list[str]

    @classmethod
    def read(cls, path: Path) -> "_Said":
        import yaml  # type: ignore[import-untyped]

        if path.is_dir():
            path = next((p for p in yamls(path)), path / "data.yaml")
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        try:
            said = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
            names = _numbered(said["names"], str)
            ids = _numbered(said.get("ids", {i: i + 1 for i in names}), int)
            root = str(said.get("path") or "")
            splits = [entry for key in SPLITS for entry in _listed(said.get(key))]
            if names.keys() != ids.keys() or not names:
                raise ValueError("ids and names of other classes, or none")
        except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path}: not a data.yaml with names and train ({first_line(error)})"
            ) from None
        once({names[i]: index for i, index in ids.items()} if len(set(names.values())) == len(names)
             else {str(i): index for i, index in ids.items()}, str(path))  # fmt: skip
        # What another machine calls the folder means nothing here.
        inside = not Path(root).is_absolute() and (path.parent / root).is_dir()
        return cls(path, names, ids, [f"{root}/{s}" if root and inside else s for s in splits])

    def pictures(self) -> list[Path]:
        """Of all splits, each once, in order."""
        found: dict[Path, None] = {}
        for split in self.splits:
            place = self._place(split)
            if place.suffix == ".txt":
                lines = place.read_text(encoding="utf-8").splitlines()
                found |= dict.fromkeys(self._place(line.strip()) for line in lines if line.strip())
            else:
                found |= dict.fromkeys(_inside(place) if place.is_dir() else [place])
        return list(found)

    def _place(self, said: str) -> Path:
        """A folder or file that data.yaml names, inside its own folder."""
        import os.path

        root = self.path.parent
        # Some tools write ../train/images and mean train/images, as ultralytics knows.
        for text in (said, said.removeprefix("../")):
            plain = os.path.normpath(text)
            if not plain.startswith("..") and not Path(plain).is_absolute():
                if (root / plain).exists():
                    return root / plain
            elif Path(plain).is_absolute() and Path(plain).is_relative_to(root.absolute()):
                return Path(plain)
        raise InputError(
            f"{self.path}: {said!r} is not in {root}; pass the folder that holds it, or pictures "
            "with images= (--images)"
        )


def yamls(folder: Path) -> list[Path]:
    """Files of a folder that may be its data.yaml."""
    return [
        p for name in ("data.yaml", "dataset.yaml", "data.yml") if (p := folder / name).is_file()
    ]


def _numbered(said: Any, kind: type) -> dict[int, Any]:
    pairs = enumerate(said) if isinstance(said, list) else said.items()
    return {int(number): kind(value) for number, value in pairs}


def _listed(said: Any) -> list[str]:
    return [] if said is None else [str(s) for s in said] if isinstance(said, list) else [str(said)]
