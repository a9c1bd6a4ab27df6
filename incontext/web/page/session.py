"""Session state of one visitor."""

import hashlib
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
SEGMENT = "segment"  # the job of the tab of images
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
    quality: str  # of each id, for people
    score: float = 1.0  # of `Segmentation`
    number: int = 0  # in the order of the pictures
    digest: str = ""  # of the picture's file: the same picture in two runs

    @classmethod
    def write(
        cls, folder: Path, name: str, source: Path, result: Segmentation, number: int = 0
    ) -> "ImageResult":
        """Write the files of `Segmentation.save`, and keep the source beside them."""
        result.save(folder, name)
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        source = keep(source, folder / "sources")
        quality = ", ".join(
            f"{result.names[i]} {q:.2f}" if (result.labels == i).any()
            else f"{result.names[i]} probably not here"
            for i, q in result.quality.items()
        )  # fmt: skip
        return cls(name, source, folder / name, quality, result.score, number, digest)

    @property
    def caption(self) -> str:
        """What it is and how good it is likely to be."""
        return f"{self.name}: {self.quality}"

    @property
    def label(self) -> str:
        """The same for where the end may be cut off."""
        return f"{self.quality} · {self.name}"

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


@dataclass(frozen=True)
class KeptResults:
    """Results of one prompt, kept to be compared with those of another."""

    folder: Path
    results: list[ImageResult]
    caption: str  # what the prompt was made of


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
    prompt_caption: str = ""  # what the prompt of the results was made of
    kept: KeptResults | None = None  # prompt A
    runs: int = 0
    folders: dict[str, Path] = field(default_factory=dict)  # of the last results, by job
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

    def new_run(self, job: str) -> Path:
        """Create a folder for the results of a job, in place of those of its last run."""
        self._discard(self.folders.pop(job, None))
        self.runs += 1
        path = self.folders[job] = self.folder / f"run{self.runs}"
        path.mkdir()
        return path

    def folder_of_results(self) -> Path | None:
        """Return where the results lie; None without any."""
        return self.results[0].stem.parent if self.results else None

    def keep(self) -> None:
        """Keep the results, to be compared with those of another prompt.

        Raises:
            InputError: there are none.
        """
        folder = self.folder_of_results()
        if folder is None:
            raise InputError("No result yet: segment first, then keep it to compare.")
        if self.kept and self.kept.folder == folder:
            return
        self.forget()
        self.kept = KeptResults(folder, list(self.results), self.prompt_caption)

    def forget(self) -> None:
        """Drop what is kept."""
        kept, self.kept = self.kept, None
        if kept and kept.folder not in self.folders.values():
            self._discard(kept.folder)

    def clear(self) -> None:
        """Drop examples and results; what the other tabs hold stays."""
        self.forget()
        self.examples, self.results, self.draft, self.undo = [], [], None, []
        self.corner = self.example_index = self.dismissed = None
        self.result_index, self.ready_made = 0, False
        self.asked = (None, [], False)
        self._discard(self.folders.pop(SEGMENT, None))

    def _discard(self, folder: Path | None) -> None:
        """Remove a folder of this session, unless its results are kept."""
        is_kept = self.kept is not None and folder == self.kept.folder
        if folder and not is_kept and folder.parent == self.folder:  # sample data stays
            shutil.rmtree(folder, ignore_errors=True)


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
