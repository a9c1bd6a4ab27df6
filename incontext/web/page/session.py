"""Session state of one visitor."""

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
from incontext.web.limits import MAX_IMAGES, new_folder, open_image
from incontext.web.page.painting import label_picture, parse_brush_names

Array = np.ndarray[Any, Any]
SIDE = 1024  # pixels: examples are kept no larger, models see them smaller still


@dataclass
class DraftExample:
    """An image and the ids painted on it, at most `SIDE` pixels wide and high."""

    picture: Image.Image
    ids: Array
    partly: bool = False  # what is not painted may be an object, too

    @classmethod
    def shrink(cls, picture: Image.Image, ids: Array, partly: bool = False) -> "DraftExample":
        """Return an example no larger than `SIDE`.

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
        """Return it as an `Example` of the library."""
        unlabelled = "unknown" if self.partly else "background"
        return Example(self.picture, label_picture(self.ids), unlabelled=unlabelled)

    def equals(self, draft: "DraftExample") -> bool:
        """Return whether both show the same ids on the same image."""
        same_ids = self.partly == draft.partly and np.array_equal(self.ids, draft.ids)
        return same_ids and self.shares_image(draft)

    def shares_image(self, draft: "DraftExample") -> bool:
        """Return whether both are painted on the same image."""
        return np.array_equal(np.asarray(self.picture), np.asarray(draft.picture))


@dataclass
class ImageResult:
    """The result for one image, in files."""

    name: str
    source: Path
    stem: Path  # of NAME.png, NAME.confidence.png and NAME.overlay.jpg
    caption: str
    score: float = 1.0  # of `Segmentation`
    number: int = 0  # in the order of the pictures

    @classmethod
    def write(
        cls, folder: Path, name: str, source: Path, result: Segmentation, number: int = 0
    ) -> "ImageResult":
        """Write the files of `Segmentation.save`, and keep the source beside them."""
        result.save(folder, name)
        source = keep(source, folder / "sources")
        quality = ", ".join(
            f"{result.names[i]} {q:.2f}" if (result.labels == i).any()
            else f"{result.names[i]} probably not here"
            for i, q in result.quality.items()
        )  # fmt: skip
        return cls(name, source, folder / name, f"{name}: {quality}", result.score, number)

    def file(self, view: str) -> Path:
        """Return the image file of one of `VIEWS`."""
        return self.stem.with_name(self.stem.name + VIEWS[view])

    def ids(self) -> Array:
        """Read the labels, (H, W)."""
        with Image.open(self.file("mask")) as image:
            return np.asarray(image)

    def restore(self) -> Segmentation:
        """Return labels and image as a result, for what asks for evidence."""
        ids = self.ids().astype(np.int32)
        present = dict.fromkeys(np.unique(ids[ids > 0]).tolist(), 1.0)
        return Segmentation(
            ids, np.ones(ids.shape, np.float32), present,
            open_image(self.source), (), {}, {},
        )  # fmt: skip


VIEWS = {"overlay": ".overlay.jpg", "mask": ".png", "confidence": ".confidence.png"}


@dataclass
class Session:
    """What one visitor works on; its files are removed when the visitor leaves, or in an hour."""

    folder: Path
    examples: list[DraftExample] = field(default_factory=list)
    results: list[ImageResult] = field(default_factory=list)
    draft: tuple[Image.Image, Array] | None = None  # image and ids to pick on
    undo: list[Array] = field(default_factory=list)  # ids before each pick
    corner: tuple[int, int] | None = None  # first corner of a box
    result_index: int = 0  # the one to be corrected
    # Checkpoint, examples, and whether these were cropped, of the results.
    asked: tuple[str | None, list[Example], bool] = (None, [], False)
    example_index: int | None = None  # the one to be removed
    dismissed: DraftExample | None = None  # removed from the examples, but still in the editor
    ready_made: bool = False  # the examples are sample data
    runs: int = 0
    clip: Any = None  # a Clip of incontext.web.page.tracking

    @classmethod
    def create(cls) -> "Session":
        """Return a new session."""
        return cls(new_folder("session-"))

    @classmethod
    def resume(cls, session: "Session | None") -> "Session":
        """Return the visitor's session, or a new one if there is none or its files are removed."""
        if session is None:
            return cls.create()
        if not session.folder.is_dir():
            gr.Warning("Your files were removed after an hour: this begins anew.")
            return cls.create()
        session.folder.touch()
        return session

    def close(self) -> None:
        """Remove the files."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def add(self, draft: DraftExample) -> bool:
        """Add an example, in place of one of the same image.

        Returns:
            False if it is among the examples already.

        Raises:
            InputError: too many.
        """
        if any(draft.equals(example) for example in self.examples):
            return False
        for number, example in enumerate(self.examples):
            if draft.shares_image(example):  # painted on since then
                self.examples[number] = draft
                return True
        if len(self.examples) >= MAX_IMAGES:
            raise InputError(f"{MAX_IMAGES} examples are enough here; remove some first")
        self.examples.append(draft)
        self.dismissed = None
        return True

    def names(self, text: str) -> dict[int, str]:
        """Return names for the ids that the examples show."""
        ids = sorted({int(i) for example in self.examples for i in np.unique(example.ids) if i})
        return parse_brush_names(text, ids)

    def new_clip(self) -> Path:
        """Create a folder for a clip; a job may still write into that of the clip before."""
        self.runs += 1
        path = self.folder / f"clip{self.runs}"
        path.mkdir()
        return path

    def new_run(self) -> Path:
        """Create a folder for results, in place of those before."""
        shutil.rmtree(self.folder / f"run{self.runs}", ignore_errors=True)
        self.runs += 1
        path = self.folder / f"run{self.runs}"
        path.mkdir()
        return path


def keep(file: Path, folder: Path) -> Path:
    """Link an uploaded file into a folder, where it stays when the upload is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / file.name
    if not link.exists():
        try:
            os.link(file, link)
        except OSError:  # another file system
            shutil.copy(file, link)
    return link


def pack(path: Path, files: Iterable[tuple[Path, str]]) -> Path:
    """Write a zip of files, each under the name given for it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, name in files:
            archive.write(file, name)
    return path
