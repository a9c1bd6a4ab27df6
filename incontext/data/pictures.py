"""Sets of pictures with labels: reading them, and holding them at one size for training."""

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
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from incontext.errors import InputError, first_line
from incontext.images.image import read_image, resize_nearest

Ids = np.ndarray[Any, np.dtype[np.uint8]]

IGNORE = 255  # label of pixels that are neither judged nor shown as anything
KINDS = ("semantic", "regions", "video")
SMALLEST = 12  # pixels; a smaller object teaches nothing


@dataclass
class PictureSet:
    """Pictures with labels, read once and held at one square size.

    Attributes:
        kind: semantic (ids mean the same in every picture), regions (ids mean nothing across
            pictures) or video (frames of clips in order).
        images: (M, 3, S, S) uint8.
        labels: (M, S, S) uint8, 0 = background, 255 = ignore.
        domain: pictures of another domain do not hold this set's classes; "" when unknown.
        holders: class → pictures that hold it.
    """

    name: str
    kind: str
    images: Tensor
    labels: Tensor
    domain: str = ""
    holders: dict[int, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for index, labels in enumerate(self.labels.numpy()):
            ids, counts = np.unique(labels, return_counts=True)
            for value, count in zip(ids.tolist(), counts.tolist(), strict=True):
                if value not in (0, IGNORE) and count >= SMALLEST:
                    self.holders.setdefault(value, []).append(index)

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, chosen: list[int]) -> "PictureSet":
        """The same set with some of its pictures only."""
        images, labels = self.images[chosen], self.labels[chosen]
        return PictureSet(self.name, self.kind, images, labels, self.domain)


def read_pairs(source: Path, unlabelled: bool = False) -> Iterator[tuple[str, Image.Image, Ids]]:
    """(id, RGB picture, labels (H, W) uint8) of a set: `NAME.tar`, or a folder, with images/ and
    labels/.

    Args:
        unlabelled: a folder without labels/ is read too, as all background.

    Raises:
        InputError: a folder without the two or without a single pair, damaged files, labels that
            are no 8-bit ids of their picture's size.
    """
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    pairs = _read_tar(source) if source.is_file() else _read_folder(source)
    # A .tar without labels may be one that was cut short.
    bare = unlabelled and source.is_dir() and not (source / "labels").exists()
    parts = 1 if bare else 2
    whole = {name: pair for name, pair in sorted(pairs.items()) if len(pair) == parts}
    if not whole:
        names = sorted(name for name, pair in pairs.items() if "images" in pair)
        wanted = f", such as labels/{names[0]}.png" if names else ""
        raise InputError(
            f"{source}: no picture under images/ has labels of its name in labels/{wanted}"
        )
    alone = sorted(name for name, pair in pairs.items() if parts == 2 and "labels" not in pair)
    if alone:
        warnings.warn(
            f"{source}: {len(alone)} of {len(alone) + len(whole)} pictures have no labels and are "
            f"left out: {', '.join(alone[:5])}{' …' if len(alone) > 5 else ''}",
            stacklevel=2,
        )
    for name, pair in whole.items():
        try:
            stored = Image.open(io.BytesIO(pair["images"]))
            stored.load()  # damage is then said with the name, below
            image = read_image(stored)
            if bare:
                yield name, image, np.zeros(image.size[::-1], np.uint8)
                continue
            ids = np.asarray(Image.open(io.BytesIO(pair["labels"])))
        except UnidentifiedImageError:
            raise InputError(f"{source}: {name}: picture or labels are no image file") from None
        except (OSError, SyntaxError) as error:
            raise InputError(f"{source}: {name}: damaged picture or labels ({error})") from None
        if ids.ndim != 2 or ids.dtype not in (np.uint8, bool) or ids.shape != image.size[::-1]:
            raise InputError(
                f"{source}: labels of {name} are {ids.dtype} {ids.shape}; accepted: 8-bit ids of "
                f"the picture's height and width, {image.size[::-1]}"
            )
        yield name, image, ids.astype(np.uint8)


def _read_tar(source: Path) -> dict[str, dict[str, bytes]]:
    """Name → part (images, labels) → bytes."""
    pairs: dict[str, dict[str, bytes]] = {}
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


def _read_folder(source: Path) -> dict[str, dict[str, bytes]]:
    """Name → part (images, labels) → bytes."""
    pairs: dict[str, dict[str, bytes]] = {}
    for part in ("images", "labels"):
        for path in sorted((source / part).glob("*")):
            if path.is_file() and not _hidden(path):
                pairs.setdefault(path.stem, {})[part] = path.read_bytes()
    return pairs


def _hidden(path: Path) -> bool:
    """Whether a file is one of those that systems leave in folders, such as .DS_Store."""
    return path.name.startswith(".")


def describe(source: Path) -> dict[str, Any]:
    """What the `NAME.json` beside a set says; nothing where there is none.

    Raises:
        InputError: not a JSON object, or a kind that is not known.
    """
    path = source.with_suffix(".json")
    if not path.is_file():
        return {}
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(about, dict) or about.get("kind", KINDS[0]) not in KINDS:
        raise InputError(f"{path}: accepted: an object whose kind is one of {', '.join(KINDS)}")
    return about


def check_labelled(data: PictureSet, source: Path) -> None:
    """Raise InputError unless some picture of a set to learn from has a label that counts."""
    if not data.holders:
        side = data.images.shape[-1]
        if (data.labels == IGNORE).any() and ((data.labels == 0) | (data.labels == IGNORE)).all():
            raise InputError(
                f"{source}: the labels hold 0 and 255 only, and 255 means unknown in training; "
                "write the object as 1"
            )
        raise InputError(
            f"{source}: no picture to learn from has a label of {SMALLEST} pixels or more, at "
            f"{side} × {side}; labels are 1 to 254 (0 is the background, 255 means unknown)"
        )


def load_set(source: Path, size: int) -> PictureSet:
    """Read a set and scale every picture to size × size (bicubic; labels nearest).

    A folder without labels/ is all background: it serves for regions.

    Raises:
        InputError: see `read_pairs` and `describe`.
    """
    about = describe(source)
    images, labels = [], []
    for _, image, ids in read_pairs(source, unlabelled=True):
        small = image.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=3.0)
        images.append(torch.from_numpy(np.array(small)).permute(2, 0, 1))
        labels.append(torch.from_numpy(resize_nearest(ids, (size, size))))
    return PictureSet(
        source.stem, about.get("kind", KINDS[0]), torch.stack(images), torch.stack(labels),
        about.get("domain", ""),
    )  # fmt: skip
