"""Sets of images with labels: reading them, and holding them at one size for training."""

import io
import json
import tarfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from incontext.errors import InputError, first_line
from incontext.images.image import read_file, resize_nearest
from incontext.labels import encodings
from incontext.labels.encodings import IdMap

Ids = np.ndarray[Any, np.dtype[np.uint8]]
Content = Path | bytes  # a file, or what is in it
IGNORE_INDEX = encodings.IGNORE_INDEX

SET_TYPES = ("semantic", "regions", "video")
MIN_OBJECT_PIXELS = 12  # a smaller object teaches nothing


@dataclass
class PictureSet:
    """Images with labels, read once and held at one square size.

    Attributes:
        set_type: semantic (ids mean the same in every image), regions (ids mean nothing across
            images) or video (frames of clips in order).
        images: (M, 3, S, S) uint8.
        labels: (M, S, S) uint8, 0 = background, 255 = ignore.
        domain: images of another domain do not show this set's classes; "" if unknown.
        images_by_class: class → indices of the images that show it.
    """

    name: str
    set_type: str
    images: Tensor
    labels: Tensor
    domain: str = ""
    images_by_class: dict[int, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for index, labels in enumerate(self.labels.numpy()):
            ids, counts = np.unique(labels, return_counts=True)
            for value, count in zip(ids.tolist(), counts.tolist(), strict=True):
                if value not in (0, IGNORE_INDEX) and count >= MIN_OBJECT_PIXELS:
                    self.images_by_class.setdefault(value, []).append(index)

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: list[int]) -> "PictureSet":
        """Return a set with some of the images."""
        images, labels = self.images[indices], self.labels[indices]
        return PictureSet(self.name, self.set_type, images, labels, self.domain)


def read_pairs(source: Path, unlabelled: bool = False) -> Iterator[tuple[str, Image.Image, Ids]]:
    """Read a set, `NAME.tar` or a folder, with images/ and labels/, for training.

    Args:
        unlabelled: read a folder without labels/ too, as all background.

    Yields:
        Name, RGB image, labels (H, W) uint8, 255 = unknown.

    Raises:
        InputError: see `read_labelled`; an id over 254.
    """
    for name, image, ids in read_labelled(source, unlabelled):
        if ids.max(initial=0) >= IGNORE_INDEX:
            raise InputError(
                f"{source}: {name}: labels hold id {ids.max()}; accepted: 8-bit ids, 1 to 254 "
                "(255 is unknown)"
            )
        yield name, image, np.where(ids == encodings.UNKNOWN, IGNORE_INDEX, ids).astype(np.uint8)


def read_labelled(
    source: Path, unlabelled: bool = False
) -> Iterator[tuple[str, Image.Image, IdMap]]:
    """Read a set, `NAME.tar` or a folder, with images/ and labels/.

    Labels are read as `incontext.labels.encodings.read_labels` reads them, and 255 is unknown.

    Args:
        unlabelled: read a folder without labels/ too, as all background.

    Yields:
        Name, RGB image, ids (H, W) int32.

    Raises:
        InputError: a folder without the two or without a single pair, files that cannot be read,
            labels that are no ids of their image's size.
    """
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    pairs = _read_tar(source) if source.is_file() else _read_folder(source)
    # Not a .tar: one without labels may have been cut short.
    images_only = unlabelled and source.is_dir() and not (source / "labels").exists()
    parts = 1 if images_only else 2
    complete = {name: pair for name, pair in sorted(pairs.items()) if len(pair) == parts}
    if not complete:
        names = sorted(name for name, pair in pairs.items() if "images" in pair)
        hint = f", such as labels/{names[0]}.png" if names else ""
        raise InputError(
            f"{source}: no picture under images/ has labels of its name in labels/{hint}"
        )
    bare = sorted(name for name, pair in pairs.items() if parts == 2 and "labels" not in pair)
    if bare:
        warnings.warn(
            f"{source}: {len(bare)} of {len(bare) + len(complete)} pictures have no labels and are "
            f"left out: {', '.join(bare[:5])}{' …' if len(bare) > 5 else ''}",
            stacklevel=2,
        )
    for name, pair in complete.items():
        image, ids = read_file(pair["images"], f"{source}: {name}: picture"), None
        if not images_only:
            ids = _read_ids(pair["labels"], image.size, f"{source}: {name}: labels")
        yield name, image, np.zeros(image.size[::-1], np.int32) if ids is None else ids


def _read_ids(content: Content, size: tuple[int, int], name: str) -> IdMap:
    """Read labels as those of any example are read; 255 is unknown."""
    labels = io.BytesIO(content) if isinstance(content, bytes) else content
    try:
        return encodings.read_labels(labels, size, ignore=IGNORE_INDEX, name=name).ids
    except InputError as error:
        text = str(error)
        where = name.removesuffix(" labels")
        raise InputError(text if text.startswith(name) else f"{where} {text}") from None


def _read_tar(source: Path) -> dict[str, dict[str, Content]]:
    """Return name → part (images, labels) → bytes."""
    pairs: dict[str, dict[str, Content]] = {}
    try:
        with tarfile.open(source) as tar:
            for member in tar:
                path = Path(member.name)
                handle = tar.extractfile(member)
                if handle and path.parent.name in ("images", "labels") and not _hidden(path):
                    pairs.setdefault(path.stem, {})[path.parent.name] = handle.read()
    except Exception as error:  # every decompressor raises errors of its own on damaged data
        raise InputError(
            f"{source}: no readable .tar of images/ and labels/ ({first_line(error)})"
        ) from None
    return pairs


def _read_folder(source: Path) -> dict[str, dict[str, Content]]:
    """Return name → part (images, labels) → file."""
    pairs: dict[str, dict[str, Content]] = {}
    for part in ("images", "labels"):
        for path in sorted((source / part).glob("*")):
            if path.is_file() and not _hidden(path):
                pairs.setdefault(path.stem, {})[part] = path
    return pairs


def _hidden(path: Path) -> bool:
    """True for files that operating systems leave in folders, such as .DS_Store."""
    return path.name.startswith(".")


def read_metadata(source: Path) -> dict[str, Any]:
    """Read the `NAME.json` next to a set; empty if there is none.

    Raises:
        InputError: not a JSON object, or an unknown `kind`.
    """
    path = source.with_suffix(".json")
    if not path.is_file():
        return {}
    try:
        metadata = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({first_line(error)})") from None
    if not isinstance(metadata, dict) or metadata.get("kind", SET_TYPES[0]) not in SET_TYPES:
        raise InputError(f"{path}: accepted: an object whose kind is one of {', '.join(SET_TYPES)}")
    if not isinstance(metadata.get("domain") or "", str):
        raise InputError(f"{path}: domain {metadata['domain']!r:.60}; accepted: text")
    if not isinstance(metadata.get("classes") or {}, dict):
        raise InputError(f"{path}: classes {metadata['classes']!r:.60}; accepted: {{id: name}}")
    return metadata


def class_names(metadata: dict[str, Any]) -> dict[int, str]:
    """Return names by id of a set's metadata; other keys than ids are left out."""
    classes = (metadata.get("classes") or {}).items()
    return {int(i): str(n) for i, n in classes if str(i).isdecimal() and len(str(i)) < 6}


def check_labelled(data: PictureSet, source: Path) -> None:
    """Raise InputError unless a set to learn from has an object that is large enough."""
    if not data.images_by_class:
        side, ignored = data.images.shape[-1], data.labels == IGNORE_INDEX
        if ignored.any() and ((data.labels == 0) | ignored).all():
            raise InputError(
                f"{source}: the labels hold 0 and 255 only, and 255 means unknown in training; "
                "write the object as 1"
            )
        raise InputError(
            f"{source}: no picture to learn from has a label of {MIN_OBJECT_PIXELS} pixels or "
            f"more, at "
            f"{side} × {side}; labels are 1 to 254 (0 is the background, 255 means unknown)"
        )


def load_set(source: Path, size: int) -> PictureSet:
    """Read a set and resize every image to size × size (bicubic; labels nearest).

    A folder without labels/ is all background: it serves for regions.

    Raises:
        InputError: see `read_pairs` and `read_metadata`.
    """
    metadata = read_metadata(source)
    images, labels = [], []
    for _, image, ids in read_pairs(source, unlabelled=True):
        small = image.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=3.0)
        images.append(torch.from_numpy(np.array(small)).permute(2, 0, 1))
        labels.append(torch.from_numpy(resize_nearest(ids, (size, size))))
    return PictureSet(
        source.stem, metadata.get("kind", SET_TYPES[0]), torch.stack(images), torch.stack(labels),
        metadata.get("domain") or "",
    )  # fmt: skip
