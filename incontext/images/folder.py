"""Folders of images: which files in them are images, and what is left out.

The one place that decides this, for images to segment, sets of other tools and frames of a video.
"""

import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import features

from incontext.errors import InputError
from incontext.images import dicom, volume

# What folders are searched for; a file given by its path is read whatever its suffix.
_ALWAYS = (
    ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff",
    ".webp", *dicom.SUFFIXES,
)  # fmt: skip
# Suffixes that Pillow reads where it was built with a decoder for them.
_WITH_DECODER = {
    "avif": (".avif",),
    "jpg_2000": (".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx"),
}
SUFFIXES = frozenset(_ALWAYS).union(
    *(suffixes for decoder, suffixes in _WITH_DECODER.items() if features.check(decoder))
)
# Images too, but not read here: what is left out of a folder is said.
OTHER_SUFFIXES = frozenset((
    ".arw", ".cr2", ".cr3", ".czi", ".dng", ".exr", ".hdr", ".heic", ".heics", ".heif",
    ".hif", ".ico", ".jxl", ".lif", ".nd2", ".nef", ".orf", ".pef", ".psd", ".raf", ".rw2",
    ".svg", ".tga",
)).union(*_WITH_DECODER.values()) - SUFFIXES  # fmt: skip
INPUT_SUFFIXES = SUFFIXES.union(volume.SUFFIXES)  # a volume stands for its slices
Place = tuple[str, str]  # path, path below the folder that was searched


@dataclass
class FolderListing:
    """What a folder holds. Names that begin with a dot are nobody's images and never in it.

    Attributes:
        files: images, sorted as paths are; broken links with the name of an image are among them.
        locked: folders that cannot be listed.
        left_out: folders that `leave_out` gave a reason for.
        unreadable: suffix → number of images in formats that are not read here.
    """

    files: list[Place] = field(default_factory=list)
    locked: list[Place] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    unreadable: Counter[str] = field(default_factory=Counter)

    @property
    def paths(self) -> list[Path]:
        """Paths of the images.

        Raises:
            InputError: a folder cannot be listed, so that some may be missing.
        """
        for path, _ in self.locked:
            raise InputError(f"{path}: no permission to list this folder")
        return [Path(path) for path, _ in self.files]

    def describe_unreadable(self) -> str:
        """Return what is left out in words, "3 .heic, 1 .nef"; "" if nothing is."""
        counts = sorted(self.unreadable.items(), key=lambda pair: (-pair[1], pair[0]))
        return ", ".join(f"{count} {suffix}" for suffix, count in counts)


def list_images(
    folder: str | Path,
    *,
    suffixes: Collection[str] = SUFFIXES,
    recursive: bool = True,
    leave_out: Callable[[str, Sequence[str]], str] = lambda path, names: "",
) -> FolderListing:
    """List the images of a folder, to any depth, under the paths that lead there.

    Links are followed and name their files. A linked folder is entered once, and only if it is not
    in the tree anyway, so that links that lead in a circle end. With suffixes of DICOM among those
    asked for, DICOM without a suffix counts too.

    Args:
        suffixes: of images, in lower case.
        recursive: look into the folders in it as well.
        leave_out: folder, and the names in it → why it is not searched, or "".
    """
    listing = FolderListing()
    walk = _Walk(listing, suffixes, recursive, leave_out)
    walk.folders.append((str(folder), ""))
    while walk.folders or walk.links:
        # All of the tree first: a link into it adds nothing, whatever its name.
        path, prefix = (walk.folders if walk.folders else walk.links).pop()
        walk.visit(path, prefix)
    for places in (listing.files, listing.locked):
        places.sort(key=lambda pair: pair[1].split(os.sep))
    return listing


@dataclass
class _Walk:
    """A walk through a tree: folders to enter, links to folders for later, folders entered."""

    listing: FolderListing
    suffixes: Collection[str]
    recursive: bool
    leave_out: Callable[[str, Sequence[str]], str]
    folders: list[Place] = field(default_factory=list)
    links: list[Place] = field(default_factory=list)
    entered: set[tuple[int, int]] = field(default_factory=set)

    def visit(self, folder: str, prefix: str) -> None:
        """Add the images of a folder; note the folders in it."""
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in self.entered:
                return
            self.entered.add((status.st_dev, status.st_ino))
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name, reverse=True)
        except OSError:
            self.listing.locked.append((folder, prefix))
            return
        if reason := self.leave_out(folder, [entry.name for entry in entries]):
            self.listing.left_out.append((folder, reason))
            return
        for entry in entries:
            if not entry.name.startswith("."):
                self._add(entry, prefix + entry.name)

    def _add(self, entry: "os.DirEntry[str]", name: str) -> None:
        if entry.is_dir(follow_symlinks=False):
            self.folders += [(entry.path, name + os.sep)] if self.recursive else []
            return
        if entry.is_symlink() and _is_folder(entry):
            self.links += [(entry.path, name + os.sep)] if self.recursive else []
        elif self._is_image(entry):
            if entry.is_symlink() or entry.is_file():
                self.listing.files.append((entry.path, name))
        elif (suffix := os.path.splitext(entry.name)[1].lower()) in OTHER_SUFFIXES:
            self.listing.unreadable[suffix] += 1

    def _is_image(self, entry: "os.DirEntry[str]") -> bool:
        """Return whether a file is an image by its suffix, or is DICOM without one."""
        name = entry.name.lower()
        if name.endswith(tuple(self.suffixes)):
            return True
        dicom_counts = dicom.SUFFIXES[0] in self.suffixes
        return dicom_counts and dicom.may_be_dicom(name) and dicom.is_dicom(Path(entry.path))


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links that lead in a circle
        return False
