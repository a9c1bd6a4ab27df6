"""Input images: finding them, naming their outputs, assigning them to shards."""

import glob
import hashlib
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from incontext.errors import InputError
from incontext.images import volume
from incontext.images.folder import INPUT_SUFFIXES, Place, list_images


@dataclass(frozen=True)
class InputImage:
    """An image to segment, and the name of its results below the output folder."""

    path: Path
    name: str


@dataclass(frozen=True)
class Shard:
    """One of `count` parts of all input images; an image's name alone decides its shard."""

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Parse "3/8" as Shard(3, 8).

        Raises:
            InputError: other text.
        """
        match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        if not match or int(match[1]) >= int(match[2]):
            raise InputError(
                f"--shard {text!r}; accepted: I/N with 0 ≤ I < N, such as 0/8, 1/8 … 7/8"
            )
        return cls(int(match[1]), int(match[2]))

    def holds(self, name: str) -> bool:
        """Return whether results of this name belong to this shard."""
        digest = hashlib.blake2b(os.fsencode(name), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.count == self.index

    @property
    def label(self) -> str:
        """ "3-of-8", in names of files and folders."""
        return f"{self.index}-of-{self.count}"


UNSHARDED = Shard()


RESULTS_NAME = re.compile(r"results(\.[0-9]+-of-[0-9]+)?\.json")
RESULTS_START = b'{\n "settings":'  # of all that this package writes under such a name
OUTPUT, EARLIER = "the output folder", "results of an earlier run"


def find_images(sources: Sequence[str | Path], out: Path) -> list[InputImage]:
    """Find the images behind files, folders (searched to any depth) and glob patterns.

    A NIfTI volume is a folder of its slices. Names keep the structure below the given folder. If
    two would be the same, each takes its suffix into its name; what still collides is refused.
    Folders that cannot be listed are among the images, so that they fail as an image does that
    cannot be read. Warns of what is left out.

    Raises:
        InputError: a source without an image, or two images with one name.
    """
    names: dict[str, str] = {}  # path → path below the source
    out_folder = os.path.realpath(out)
    for source in sources:
        path = given_path(source)
        if path.is_dir():
            pairs = _scan(source, path, out_folder)
        elif os.path.lexists(file := volume.picture_file(path)):
            pairs = _outside([(str(path), file.name)], out_folder)
        else:
            pairs = _outside(_match(source), out_folder)
        if not pairs:
            raise InputError(
                f"{source}: lies in the output folder {out}, where results are kept apart from "
                "pictures; pass another --out"
            )
        for pair in pairs:
            for p, name in _slices(*pair):
                names.setdefault(p, name)
    return list(_name_outputs(names))


def given_path(source: str | Path) -> Path:
    """Return the absolute path of a source as it was given: links stay, `..` does not."""
    path = Path(source).absolute()
    if ".." not in path.parts:
        return path
    end = len(path.parts) - path.parts[::-1].index("..")
    return Path(os.path.realpath(Path(*path.parts[:end])), *path.parts[end:])


def _outside(pairs: list[Place], out_folder: str) -> list[Place]:
    """Return the files that neither lie in the output folder nor are links into it."""
    return [pair for pair in pairs if not _is_within(pair[0], out_folder)]


def _is_within(path: str | Path, folder: str) -> bool:
    return (os.path.realpath(path) + os.sep).startswith(folder.rstrip(os.sep) + os.sep)


def _match(pattern: str | Path) -> list[Place]:
    """Return (path, name) of the files that a pattern fits, without results of earlier runs.

    Raises:
        InputError: none.
    """
    parts = Path(pattern).parts
    depth = next((n for n, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    reasons: dict[Path, str] = {}  # folder that the pattern leads into → why it is left out
    pairs = []
    for match in sorted(Path(p) for p in glob.glob(str(pattern), recursive=True)):
        if not match.is_file():
            continue
        folders = [parent for parent in match.parents if len(parent.parts) > depth]
        for folder in folders:
            if folder not in reasons:
                reasons[folder] = _describe_results(str(folder), os.listdir(folder))
        if not any(reasons[folder] for folder in folders):
            pairs.append((str(given_path(match)), match.name))
    if not pairs:
        raise InputError(f"{pattern}: no such file, or no picture in it")
    _warn_of_left_out((str(folder), reason) for folder, reason in reasons.items() if reason)
    return pairs


def _scan(source: str | Path, folder: Path, out_folder: str) -> list[Place]:
    """Return (path, path below the folder) of all images in it, and of folders without permission.

    Raises:
        InputError: the folder itself cannot be listed, or holds nothing but what is left out.
    """
    if _is_within(folder, out_folder):
        return []

    def leave_out(path: str, names: Sequence[str]) -> str:
        return OUTPUT if _is_within(path, out_folder) else _describe_results(path, names)

    listing = list_images(folder, suffixes=INPUT_SUFFIXES, leave_out=leave_out)
    if any(not name for _, name in listing.locked):
        raise InputError(f"{source}: no permission to list this folder")
    if (str(folder), EARLIER) in listing.left_out:
        raise InputError(f"{source}: holds {EARLIER}; give the folder of the pictures")
    pairs = [*listing.files, *listing.locked]
    others = listing.describe_unreadable()
    if not pairs:
        only = f" that can be read here, only {others}" if others else " in it"
        raise InputError(f"{source}: no such file, or no picture{only}")
    if others:
        warnings.warn(f"{source}: left out, as they are not read here: {others}", stacklevel=3)
    _warn_of_left_out(place for place in listing.left_out if place[1] != OUTPUT)
    return pairs


def _warn_of_left_out(places: Iterable[tuple[str, str]]) -> None:
    for folder, reason in sorted(places):
        warnings.warn(f"{folder}: left out: {reason}", stacklevel=4)


def _describe_results(folder: str, names: Iterable[str]) -> str:
    """Return `EARLIER` if a folder with these names in it was an output folder, else ""."""
    for name in names:
        if RESULTS_NAME.fullmatch(name):
            with suppress(OSError), open(os.path.join(folder, name), "rb") as file:
                if file.read(len(RESULTS_START)) == RESULTS_START:
                    return EARLIER
    return ""


def _slices(path: str, name: str) -> Iterator[tuple[str, str]]:
    """Yield paths and names of the slices of a volume, and of any other image its own."""
    try:
        slices = volume.slice_paths(Path(path)) if volume.SlicePath.parse(path) else []
    except InputError:  # said again where it is read: a bad volume does not stop the others
        slices = []
    stem = re.sub(r"\.nii(\.gz)?$", "", name, flags=re.IGNORECASE)
    for slice_path in slices:
        yield str(slice_path), os.path.join(stem, slice_path.parent.name, slice_path.name)
    if not slices:
        yield path, name


def _name_outputs(names: dict[str, str]) -> Iterator[InputImage]:
    """Yield input images under the shortest names that tell them apart."""
    stems = Counter(os.path.splitext(name)[0] for name in names.values())
    paths_by_name: dict[str, str] = {}
    for path, name in names.items():
        stem, suffix = os.path.splitext(name)
        # "a.confidence" would be written where the confidence of "a" is.
        unambiguous = stems[stem] == 1 and not stem.endswith(".confidence")
        unique = stem if unambiguous else f"{stem}_{suffix[1:]}"
        if unique in paths_by_name:
            raise InputError(
                f"{path} and {paths_by_name[unique]} would both be written as {unique}; give their "
                "common folder, or segment them into different folders"
            )
        paths_by_name[unique] = path
        yield InputImage(Path(path), unique)


def file_hash(path: str | Path) -> str:
    """Return the first 16 hex digits of a file's SHA-256; a slice of a volume adds where it is."""
    path = Path(path)
    file_path = volume.picture_file(path)
    if file_path == path:
        return _digest(path)
    status = file_path.stat()
    digest = _volume_digest(file_path, status.st_size, status.st_mtime_ns)
    return f"{digest}/{path.relative_to(file_path).as_posix()}"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


@lru_cache(maxsize=16)  # every slice asks for it
def _volume_digest(path: Path, size: int, modified_ns: int) -> str:
    return _digest(path)


def fingerprint(path: Path) -> dict[str, Any]:
    """Return path, size and time of change of a file, which tell it from an edited one."""
    status = volume.picture_file(path).stat()
    return {"path": str(path), "bytes": status.st_size, "modified_ns": status.st_mtime_ns}


def is_same_file(source: Mapping[str, Any], path: Path) -> bool:
    """Return whether a recorded source is this path, or leads to the same file as it."""
    return source["path"] == str(path) or os.path.realpath(source["path"]) == os.path.realpath(path)


def is_edited(source: Mapping[str, Any]) -> bool:
    """Return whether a recorded source has other content now; its hash decides where it is known.

    Raises:
        OSError: it is gone, or cannot be read.
    """
    now = fingerprint(Path(source["path"]))
    if now["bytes"] != source["bytes"]:
        return True
    if now["modified_ns"] == source["modified_ns"]:
        return False
    return "sha256" not in source or file_hash(source["path"]) != source["sha256"]


def is_gone(path: str) -> bool:
    """Return whether nothing is at a path any more; what cannot be looked at is not gone."""
    try:
        volume.picture_file(Path(path)).stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def is_void(path: str) -> bool:
    """Return whether a failure has lost its cause: nothing is there, or a folder that opens now."""
    return is_gone(path) or (os.path.isdir(path) and os.access(path, os.R_OK | os.X_OK))
