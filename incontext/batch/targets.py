"""Targets: pictures to segment, what their results are called, and which part of them is whose."""

import glob
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from incontext.errors import InputError
from incontext.images.image import SUFFIXES


@dataclass(frozen=True)
class Target:
    """A picture to segment, and the name of its results below the output folder."""

    path: Path
    name: str


@dataclass(frozen=True)
class Shard:
    """One of `of` parts of all targets; the name of a target alone says which part it is in."""

    index: int = 0
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """ "3/8" → Shard(3, 8).

        Raises:
            InputError: something else.
        """
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        if not found or int(found[1]) >= int(found[2]):
            raise InputError(
                f"--shard {text!r}; accepted: I/N with 0 ≤ I < N, such as 0/8, 1/8 … 7/8"
            )
        return cls(int(found[1]), int(found[2]))

    def holds(self, name: str) -> bool:
        """Whether the results of this name are this shard's."""
        digest = hashlib.blake2b(os.fsencode(name), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.of == self.index

    @property
    def label(self) -> str:
        """ "3-of-8", in names of files and folders."""
        return f"{self.index}-of-{self.of}"


WHOLE = Shard()


def find_targets(sources: Sequence[str | Path], out: Path) -> list[Target]:
    """Pictures behind files, folders (searched to any depth) and glob patterns.

    Names keep the structure below the folder that was given. Where two would be the same, each
    takes its suffix into its name; what still collides is refused.

    Raises:
        InputError: a source without a picture, or two pictures with one name.
    """
    found: dict[str, str] = {}
    kept = os.path.realpath(out)
    for source in sources:
        path = Path(source)
        if path.is_dir():
            pairs = _below(path)
        elif path.exists():
            pairs = [(os.path.realpath(path), path.name)]
        else:
            matches = sorted(Path(p) for p in glob.glob(str(source), recursive=True))
            pairs = [(os.path.realpath(p), p.name) for p in matches if p.is_file()]
        if not pairs:
            raise InputError(f"{source}: no such file, or no picture in it")
        # Results of an earlier run are no targets, also where `out` lies inside a target folder.
        pairs = [(p, name) for p, name in pairs if not p.startswith(kept + os.sep)]
        if not pairs:
            raise InputError(
                f"{source}: lies in the output folder {out}, where results are kept apart from "
                "pictures; pass another --out"
            )
        for p, name in pairs:
            found.setdefault(p, name)
    return list(_named(found))


def _below(folder: Path) -> list[tuple[str, str]]:
    """(real path, path below the folder) of all pictures in it, sorted as paths are.

    Only links are resolved one by one: that is what costs, with millions of pictures.
    """
    found = []
    waiting = [(os.path.realpath(folder), "")]
    while waiting:
        real, below = waiting.pop()
        try:
            entries = list(os.scandir(real))
        except PermissionError:
            continue
        for entry in entries:
            name = below + entry.name
            if entry.is_dir(follow_symlinks=False):
                waiting.append((entry.path, name + os.sep))
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES and entry.is_file():
                path = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
                found.append((path, name))
    return sorted(found, key=lambda pair: pair[1].split(os.sep))


def _named(found: dict[str, str]) -> Iterator[Target]:
    """Targets under the shortest names that tell them apart."""
    stems: dict[str, int] = {}
    for name in found.values():
        stem = os.path.splitext(name)[0]
        stems[stem] = stems.get(stem, 0) + 1
    taken: dict[str, str] = {}
    for path, name in found.items():
        stem, suffix = os.path.splitext(name)
        # "a.confidence" would be written where the confidence of "a" is.
        clear = stems[stem] == 1 and not stem.endswith(".confidence")
        unique = stem if clear else f"{stem}_{suffix[1:]}"
        if unique in taken:
            raise InputError(
                f"{path} and {taken[unique]} would both be written as {unique}; give their common "
                "folder, or segment them into different folders"
            )
        taken[unique] = path
        yield Target(Path(path), unique)


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, first 16 hex digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def fingerprint(path: Path) -> dict[str, Any]:
    """What tells a file from an edited or another one, without reading it."""
    status = path.stat()
    return {"path": str(path), "bytes": status.st_size, "modified_ns": status.st_mtime_ns}
