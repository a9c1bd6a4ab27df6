"""Input images: finding them, naming their outputs, assigning them to shards."""

import glob
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from incontext.errors import InputError
from incontext.images import dicom, volume
from incontext.images.image import SUFFIXES


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


def find_images(sources: Sequence[str | Path], out: Path) -> list[InputImage]:
    """Find the images behind files, folders (searched to any depth) and glob patterns.

    A NIfTI volume is a folder of its slices. Names keep the structure below the given folder. If
    two would be the same, each takes its suffix into its name; what still collides is refused.

    Raises:
        InputError: a source without an image, or two images with one name.
    """
    names: dict[str, str] = {}  # real path → path below the source
    out_folder = os.path.realpath(out)
    for source in sources:
        path = Path(source)
        if path.is_dir():
            pairs = _scan(path)
        elif (file := volume.picture_file(path)).exists():
            pairs = [(os.path.realpath(path), file.name)]
        else:
            matches = sorted(Path(p) for p in glob.glob(str(source), recursive=True))
            pairs = [(os.path.realpath(p), p.name) for p in matches if p.is_file()]
        if not pairs:
            raise InputError(f"{source}: no such file, or no picture in it")
        # Results of an earlier run are not inputs, even if `out` lies inside a source folder.
        pairs = [(p, name) for p, name in pairs if not p.startswith(out_folder + os.sep)]
        if not pairs:
            raise InputError(
                f"{source}: lies in the output folder {out}, where results are kept apart from "
                "pictures; pass another --out"
            )
        for pair in pairs:
            for p, name in _slices(*pair):
                names.setdefault(p, name)
    return list(_name_outputs(names))


def _scan(folder: Path) -> list[tuple[str, str]]:
    """Return (real path, path below the folder) of all images in it, sorted as paths are.

    Only links are resolved one by one: that is what costs, with millions of images.
    """
    pairs = []
    folders = [(os.path.realpath(folder), "")]
    while folders:
        real, prefix = folders.pop()
        try:
            entries = list(os.scandir(real))
        except PermissionError:
            continue
        for entry in entries:
            name = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                folders.append((entry.path, name + os.sep))
            elif _is_image(entry) and entry.is_file():
                path = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
                pairs.append((path, name))
    return sorted(pairs, key=lambda pair: pair[1].split(os.sep))


def _is_image(entry: "os.DirEntry[str]") -> bool:
    name = entry.name.lower()
    if os.path.splitext(name)[1] in SUFFIXES or name.endswith(volume.SUFFIXES):
        return True
    return dicom.may_be_dicom(name) and dicom.is_dicom(Path(entry.path))


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
    with file_path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return digest if file_path == path else f"{digest}/{path.relative_to(file_path).as_posix()}"


def fingerprint(path: Path) -> dict[str, Any]:
    """Return path, size and time of change of a file, which tell it from an edited one."""
    status = volume.picture_file(path).stat()
    return {"path": str(path), "bytes": status.st_size, "modified_ns": status.st_mtime_ns}
