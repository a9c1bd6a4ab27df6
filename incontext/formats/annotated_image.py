"""Annotated images: one entry of another tool's file, and the image files that entries name."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath

from PIL import Image

from incontext.errors import InputError, parse_whole
from incontext.images.folder import list_images
from incontext.labels.color_mask import MAX_ID, Rgb
from incontext.labels.encodings import IdMap

Size = tuple[int, int]  # width, height


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """One image of a labelled set; its labels are drawn when they are needed.

    Attributes:
        location: where it comes from, for messages, such as "FILE: image a.jpg".
        image: its file, or the image itself.
        read_labels: (width, height) of the upright image → ids (H, W) int32.
        names: names of ids; ids that are not in this image may be among them.
        colors: the source's own colors of ids.
        size: (width, height) that the source gives for the image.
    """

    location: str
    image: Path | Image.Image
    read_labels: Callable[[Size], IdMap] = field(repr=False)
    names: dict[int, str] = field(default_factory=dict, repr=False)
    colors: dict[int, Rgb] = field(default_factory=dict, repr=False)
    size: Size | None = None


class ImageFolder:
    """Image files of a folder, found by the names that other tools give them.

    Raises:
        InputError: not a folder.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise InputError(f"{path}: no folder of pictures; say which with images= (--images)")
        self.path = path

    @cached_property
    def files(self) -> list[Path]:
        """All images in the folder, to any depth, sorted."""
        return image_files(self.path)

    # Tables, since sets of a hundred thousand images look up each of them.
    @cached_property
    def by_name(self) -> dict[str, list[Path]]:
        """Images by file name."""
        return _group_by(self.files, lambda path: path.name)

    @cached_property
    def by_stem(self) -> dict[str, list[Path]]:
        """Images by file name without the suffix."""
        return _group_by(self.files, lambda path: path.stem)

    def find(self, reference: str) -> Path:
        """Return the image that a file name, a path or the end of an address refers to.

        A relative path counts from the folder, or it and the path of an image within the folder end
        alike. Of an absolute path only the end counts, since other tools keep images elsewhere.

        Raises:
            InputError: no image or several fit, or the path leads out of the folder.
        """
        reference = reference.replace("\\", "/")
        absolute = reference.startswith("/") or bool(PureWindowsPath(reference).drive)
        path = os.path.normpath(reference) if reference.strip("/. ") else ""
        if not path or (not absolute and path.startswith("..")):
            raise InputError(f"picture {reference!r} is no file in {self.path}, or leads out of it")
        if not absolute and exists(self.path / path) and not (self.path / path).is_dir():
            return self.path / path
        return self._best_match(self.by_name.get(Path(path).name, []), path, within=not absolute)

    def find_stem(self, stem: str) -> Path:
        """Return the image with this name: folders in front, no suffix.

        Raises:
            InputError: no image or several fit.
        """
        candidates = self.by_stem.get(Path(stem).name, [])
        return self._best_match(candidates, stem, within=True, suffix=False)

    def _best_match(
        self, candidates: list[Path], reference: str, within: bool, suffix: bool = True
    ) -> Path:
        """Return the candidate whose path has the longest end in common with the reference.

        Args:
            within: compare paths within the folder, where one must be an end of the other.
            suffix: the reference has a suffix.
        """
        wanted = PurePosixPath(reference).parts

        def common_end(path: Path) -> int:
            path = path if suffix else path.with_suffix("")
            parts = path.relative_to(self.path).parts if within else path.absolute().parts
            if parts == wanted:
                return len(parts) + 1
            shorter = min(len(parts), len(wanted))
            pairs = zip(reversed(parts), reversed(wanted), strict=False)
            length = next((n for n, (a, b) in enumerate(pairs) if a != b), shorter)
            return 0 if within and length < shorter else length

        best = max(map(common_end, candidates), default=0)
        closest = [path for path in candidates if best and common_end(path) == best]
        if not closest:
            raise InputError(
                f"no picture {reference!r} in {self.path}; say where pictures are with images= "
                "(--images)"
            )
        if len(closest) > 1:
            raise InputError(
                f"{reference!r} can be {closest[0]} or {closest[1]}; say which folder with images= "
                "(--images)"
            )
        return closest[0]


def exists(path: Path) -> bool:
    """Return whether a file or folder is there; no file has a name that no file can have."""
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or with characters that are not allowed
        return False


def image_files(folder: Path) -> list[Path]:
    """Return the image files of a folder, to any depth, sorted.

    Raises:
        InputError: a folder in it cannot be listed.
    """
    return list_images(folder).paths


def _group_by(files: list[Path], key: Callable[[Path], str]) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = {}
    for path in files:
        groups.setdefault(key(path), []).append(path)
    return groups


def image_folder(path: Path, images: Path | None) -> ImageFolder:
    """Return the folder of images: `images`, else the annotation file's folder or the folder."""
    return ImageFolder(images or (path if path.is_dir() else path.parent))


def stored_labels(ids: IdMap, size: Size) -> IdMap:
    """Return labels that were read before, as `AnnotatedImage.read_labels`."""
    return ids


def alphabetical_ids(names: Iterable[str]) -> dict[str, int]:
    """Number names 1, 2, … in alphabetical order, for files that have no ids."""
    return {name: number for number, name in enumerate(sorted(names), 1)}


def number_names(rows: Iterable[tuple[str, str | None]], location: str) -> dict[str, int]:
    """Return ids by name of a configuration's labels, which several tools in it may share.

    Ids are the numbers of the rows if all have one, else the order in which names come first.

    Raises:
        InputError: a name with two numbers, or see `check_unique_ids`.
    """
    rows = list(rows)
    if not all(number is not None and number.isdecimal() for _, number in rows):
        return {name: order for order, name in enumerate(dict.fromkeys(n for n, _ in rows), 1)}
    ids: dict[str, int] = {}
    for name, text in rows:
        number = parse_whole(f"{location}: id of {name!r}", text)
        if ids.setdefault(name, number) != number:
            raise InputError(f"{location}: {name!r} has the ids {ids[name]} and {number}")
    return check_unique_ids(ids, location)


def check_unique_ids(ids: dict[str, int], location: str) -> dict[str, int]:
    """Return ids by name, checked.

    Raises:
        InputError: two names share an id, or an id is out of range.
    """
    if len(set(ids.values())) < len(ids) or not all(0 < i <= MAX_ID for i in ids.values()):
        raise InputError(
            f"{location}: ids {sorted(ids.values())}; accepted: each once, 1 … {MAX_ID}"
        )
    return ids


def parse_hex_color(text: str) -> Rgb | None:
    """Convert "#ff0080" to (255, 0, 128); return None for other text."""
    try:
        red, green, blue = bytes.fromhex(text.removeprefix("#"))
    except ValueError:  # also raised by unpacking another number of bytes
        return None
    return red, green, blue
