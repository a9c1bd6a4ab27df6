"""Found: a labelled picture as another tool's file says it, drawn when it is asked for."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath

from PIL import Image

from incontext.errors import InputError
from incontext.images.image import SUFFIXES
from incontext.labels.color_mask import Rgb
from incontext.labels.encodings import IdMap

Size = tuple[int, int]  # width, height


@dataclass(frozen=True, eq=False)
class Found:
    """One picture of a labelled set.

    Attributes:
        where: what to call it in messages, such as "FILE: image a.jpg".
        picture: its file, or the picture itself.
        labels: called with (width, height) of the upright picture; ids (H, W) int32.
        names: of ids, also of such as are not in this picture.
        colors: the source's own.
        size: (width, height) that the source says the picture has.
    """

    where: str
    picture: Path | Image.Image
    labels: Callable[[Size], IdMap] = field(repr=False)
    names: dict[int, str] = field(default_factory=dict, repr=False)
    colors: dict[int, Rgb] = field(default_factory=dict, repr=False)
    size: Size | None = None


class Folder:
    """Pictures of a folder, looked up by what another tool calls them."""

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise InputError(f"{path}: no folder of pictures; say which with images= (--images)")
        self.path = path

    @cached_property
    def files(self) -> list[Path]:
        """All pictures in it, to any depth."""
        inside = sorted(self.path.rglob("*"))
        return [p for p in inside if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")]

    # Tables, since sets of a hundred thousand pictures look up each of them.
    @cached_property
    def by_name(self) -> dict[str, list[Path]]:
        """Pictures of each file name."""
        return _grouped(self.files, lambda path: path.name)

    @cached_property
    def by_stem(self) -> dict[str, list[Path]]:
        """Pictures of each name without a suffix."""
        return _grouped(self.files, lambda path: path.stem)

    def find(self, said: str) -> Path:
        """The picture that a file name, path or end of an address means.

        A relative path counts from the folder, or ends or begins farther in than the pictures do;
        of another path the end counts, since other tools keep pictures elsewhere.

        Raises:
            InputError: none or several, or a path that leads out of the folder.
        """
        said = said.replace("\\", "/")
        away = said.startswith("/") or bool(PureWindowsPath(said).drive)
        plain = os.path.normpath(said) if said.strip("/. ") else ""
        if not plain or (not away and plain.startswith("..")):
            raise InputError(f"picture {said!r} is no file in {self.path}, or leads out of it")
        if not away and (self.path / plain).is_file():
            return self.path / plain
        return self._only(self.by_name.get(Path(plain).name, []), plain, whole=not away)

    def named(self, stem: str) -> Path:
        """The picture with this name, folders in front and no suffix.

        Raises:
            InputError: none or several.
        """
        return self._only(self.by_stem.get(Path(stem).name, []), stem, whole=True, suffix=False)

    def _only(self, found: list[Path], said: str, whole: bool, suffix: bool = True) -> Path:
        """The one whose path has the longest end in common with what was said.

        `whole`: counted within the folder, and one of the two must be an end of the other.
        """
        wanted = PurePosixPath(said).parts

        def alike(path: Path) -> int:
            plain = path if suffix else path.with_suffix("")
            parts = plain.relative_to(self.path).parts if whole else plain.absolute().parts
            if parts == wanted:
                return len(parts) + 1
            least = min(len(parts), len(wanted))
            pairs = zip(reversed(parts), reversed(wanted), strict=False)
            same = next((n for n, (a, b) in enumerate(pairs) if a != b), least)
            return 0 if whole and same < least else same

        best = max(map(alike, found), default=0)
        closest = [p for p in found if best and alike(p) == best]
        if not closest:
            raise InputError(
                f"no picture {said!r} in {self.path}; say where pictures are with images= "
                "(--images)"
            )
        if len(closest) > 1:
            raise InputError(
                f"{said!r} can be {closest[0]} or {closest[1]}; say which folder with images= "
                "(--images)"
            )
        return closest[0]


def _grouped(files: list[Path], key: Callable[[Path], str]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in files:
        found.setdefault(key(path), []).append(path)
    return found


def pictures_of(path: Path, images: Path | None) -> Folder:
    """The folder of pictures: the one given, the one that holds the file, the folder itself."""
    return Folder(images or (path if path.is_dir() else path.parent))


def given(ids: IdMap, size: Size) -> IdMap:
    """Labels that were read already, as `Found.labels`."""
    return ids


def numbered(names: set[str]) -> dict[str, int]:
    """Ids of a file that knows names alone: 1, 2, … in alphabetical order."""
    return {name: number for number, name in enumerate(sorted(names), 1)}


def once(table: dict[str, int], where: str) -> dict[str, int]:
    """Ids by name, checked.

    Raises:
        InputError: an id that two names share, or one that is no id.
    """
    if len(set(table.values())) < len(table) or not all(0 < i <= 65_535 for i in table.values()):
        raise InputError(f"{where}: ids {sorted(table.values())}; accepted: each once, 1 … 65535")
    return table


def rgb_of(text: str) -> Rgb | None:
    """ "#ff0080" → (255, 0, 128); None: no such text."""
    try:
        red, green, blue = bytes.fromhex(text.removeprefix("#"))
    except ValueError:  # also what unpacking says of another length
        return None
    return red, green, blue
