"""Labelled: what every format is written from, and the results of `incontext segment` as such."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from incontext.batch.records import read_all, sources
from incontext.errors import InputError, first_line
from incontext.formats.annotated_image import Folder, Found, given
from incontext.labels.color_mask import Rgb
from incontext.labels.encodings import IdMap


class Answered(Protocol):
    """A `Segmentation`, or what was read back of one."""

    @property
    def labels(self) -> IdMap:
        """(H, W), 0 is the background."""

    @property
    def presence(self) -> Mapping[int, float]:
        """Of each id, 0–1."""

    @property
    def names(self) -> Mapping[int, str]:
        """Of the ids."""

    @property
    def colors(self) -> Mapping[int, Rgb]:
        """Of the ids."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """Labels of one picture, read back from a file.

    `name`: what results are called, without a suffix; `source`: the picture.
    """

    name: str
    source: Path
    labels: IdMap = field(repr=False)
    presence: dict[int, float]
    names: dict[int, str] = field(repr=False)
    colors: dict[int, Rgb] = field(repr=False)


def read_results(folder: str | Path) -> Iterator[Labelled]:
    """All results of a folder that `incontext segment` wrote, one at a time, by name.

    Those of shards and of runs that are still at work are among them.

    Raises:
        InputError: no such results, or a label file that is gone or damaged.
    """
    folder = Path(folder)
    if not any(path.is_file() for group in sources(folder) for path in group):
        raise InputError(f"{folder}: no results.json; accepted: a folder of `incontext segment`")
    ids, entries = read_all(folder)
    try:
        names = {int(i): str(one["name"]) for i, one in ids.items()}
        colors = {int(i): (one["color"][0], one["color"][1], one["color"][2])
                  for i, one in ids.items()}  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(
            f"{folder}: results are damaged, or not of `incontext segment` ({first_line(error)})"
        ) from None
    for name in sorted(entries):
        entry = entries[name]
        presence = {int(i): float(one["presence"]) for i, one in entry["ids"].items()}
        labels = _labels(folder / entry["files"]["labels"])
        yield Labelled(name, Path(entry["source"]["path"]), labels, presence, names, colors)


def _labels(path: Path) -> IdMap:
    try:
        with Image.open(path) as image:
            return np.asarray(image).astype(np.int32)
    except Exception as error:  # decoders raise nearly anything
        raise InputError(f"{path}: gone or damaged ({type(error).__name__})") from None


def read(path: Path, images: Path | None) -> Iterator[Found]:
    """The same as examples: pictures where they were, or found by name in `images`.

    Raises:
        InputError: see `read_results`; a picture that is gone.
    """
    folder = Folder(images) if images else None
    for one in read_results(path):
        where = f"{path}: result {one.name}"
        try:
            said = str(Path(one.name).with_name(one.source.name))
            picture = folder.find(said) if folder else one.source
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        names = {i: name for i, name in one.names.items() if name != str(i)}
        yield Found(where, picture, partial(given, one.labels), names, one.colors)
