"""Desk: what one visitor has lying around between two clicks."""

import os
import shutil
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from incontext import Example, InputError, Segmentation
from incontext.web.limits import PICTURES, new_folder
from incontext.web.page.painting import label_picture, read_names

Array = np.ndarray[Any, Any]
SIDE = 1024  # pixels: examples are kept no larger, models see them smaller still


@dataclass
class Shown:
    """A picture and the ids painted on it, at most `SIDE` pixels wide and high."""

    picture: Image.Image
    ids: Array
    partly: bool = False  # what is not painted may be an object too

    @classmethod
    def of(cls, picture: Image.Image, ids: Array, partly: bool = False) -> "Shown":
        """Made small.

        Raises:
            InputError: nothing is painted.
        """
        if not ids.any():
            raise InputError("Nothing is painted yet: paint or pick what you mean first.")
        scale = min(1.0, SIDE / max(picture.size))
        if scale < 1:
            size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
            picture = picture.resize(size, Image.Resampling.BICUBIC)
            ids = np.asarray(Image.fromarray(ids).resize(size, Image.Resampling.NEAREST))
        return cls(picture, ids, partly)

    def example(self) -> Example:
        """As the library takes it."""
        unlabelled = "unknown" if self.partly else "background"
        return Example(self.picture, label_picture(self.ids), unlabelled=unlabelled)

    def same(self, other: "Shown") -> bool:
        """Whether both show the same."""
        return (
            self.partly == other.partly
            and np.array_equal(self.ids, other.ids)
            and np.array_equal(np.asarray(self.picture), np.asarray(other.picture))
        )


@dataclass
class Answer:
    """The result for one picture, in files."""

    name: str
    source: Path
    stem: Path  # of NAME.png, NAME.confidence.png and NAME.overlay.jpg
    said: str

    @classmethod
    def write(cls, folder: Path, name: str, source: Path, result: Segmentation) -> "Answer":
        """Write what `Segmentation.save` does; the source is kept beside it."""
        result.save(folder, name)
        source = keep(source, folder / "sources")
        said = ", ".join(
            f"{result.names[i]} {p:.2f}" if p >= 0.5 else f"{result.names[i]} absent"
            for i, p in result.presence.items()
        )
        return cls(name, source, folder / name, f"{name}: {said}")

    def file(self, view: str) -> Path:
        """The picture for one of `VIEWS`."""
        return self.stem.with_name(self.stem.name + VIEWS[view])

    def ids(self) -> Array:
        """Labels, (H, W)."""
        with Image.open(self.file("mask")) as image:
            return np.asarray(image)


VIEWS = {"overlay": ".overlay.jpg", "mask": ".png", "confidence": ".confidence.png"}


@dataclass
class Desk:
    """All of one visitor; its files go when the visitor does, or after an hour."""

    folder: Path
    examples: list[Shown] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    draft: tuple[Image.Image, Array] | None = None  # what is being picked on
    undo: list[Array] = field(default_factory=list)  # ids before each pick
    corner: tuple[int, int] | None = None  # of a box whose other corner is to come
    chosen: int = 0  # of the answers
    chosen_example: int | None = None
    put_away: Shown | None = None  # removed from the examples, though it is in the editor still
    ready: bool = False  # the examples are ready-made
    runs: int = 0
    clip: Any = None  # of incontext.web.page.videos

    @classmethod
    def of(cls, desk: "Desk | None") -> "Desk":
        """The visitor's desk, a new one where there is none or its files are gone."""
        if desk is not None and not desk.folder.is_dir():
            gr.Warning("Your files were removed after an hour: this begins anew.")
        if desk is None or not desk.folder.is_dir():
            return cls(new_folder("desk-"))
        desk.folder.touch()
        return desk

    def close(self) -> None:
        """Remove the files."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def add(self, shown: Shown) -> bool:
        """One example more; the same one twice is none more. Whether it is news.

        Raises:
            InputError: too many.
        """
        if any(shown.same(other) for other in self.examples):
            return False
        for number, other in enumerate(self.examples):
            if np.array_equal(np.asarray(other.picture), np.asarray(shown.picture)):
                self.examples[number] = shown  # painted further, or anew
                return True
        if len(self.examples) >= PICTURES:
            raise InputError(f"{PICTURES} examples are enough here; remove some first")
        self.examples.append(shown)
        self.put_away = None
        return True

    def names(self, text: str) -> dict[int, str]:
        """Names of the ids that the examples show."""
        ids = sorted({int(i) for shown in self.examples for i in np.unique(shown.ids) if i})
        return read_names(text, ids)

    def new_clip(self) -> Path:
        """A folder for another clip; a job may still write into the one before."""
        self.runs += 1
        path = self.folder / f"clip{self.runs}"
        path.mkdir()
        return path

    def new_run(self) -> Path:
        """A folder for results, in place of those before."""
        shutil.rmtree(self.folder / f"run{self.runs}", ignore_errors=True)
        self.runs += 1
        path = self.folder / f"run{self.runs}"
        path.mkdir()
        return path


def keep(file: Path, folder: Path) -> Path:
    """An uploaded file under a second name, which stays when the upload is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / file.name
    if not kept.exists():
        try:
            os.link(file, kept)
        except OSError:  # another file system
            shutil.copy(file, kept)
    return kept


def pack(path: Path, files: Iterable[tuple[Path, str]]) -> Path:
    """A zip of files, each under its name in there."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, name in files:
            archive.write(file, name)
    return path
