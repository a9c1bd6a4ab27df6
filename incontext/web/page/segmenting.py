"""Segmenting: examples and pictures in, files of results out; what the page and the API share."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from incontext import Coco, Example, InputError, Prompt
from incontext.web.limits import check_count, check_paintings, open_picture
from incontext.web.models import Models
from incontext.web.page.session import Answer, Desk, pack


@dataclass(frozen=True)
class Wish:
    """How to segment."""

    checkpoint: str | None = None
    kind: str = "semantic"
    tile: int | None = None
    names: dict[int, str] = field(default_factory=dict)
    prompt: str | None = None  # a file, instead of examples


def prompt_of(models: Models, examples: Sequence[Example], wish: Wish) -> Prompt:
    """The prompt that a visitor wishes for: of a file, or of the examples.

    Raises:
        InputError: neither is there, or the file is of another checkpoint.
    """
    predictor = models.get(wish.checkpoint)
    if wish.prompt:
        return predictor.load_prompt(wish.prompt)
    if not examples:
        raise InputError("No example yet: paint on a picture what you mean.")
    return predictor.prompt(list(examples), kind=wish.kind, names=wish.names, crop=bool(wish.tile))


def segment(
    models: Models,
    desk: Desk,
    examples: Sequence[Example],
    targets: Sequence[str],
    wish: Wish,
    stop: Event,
) -> Iterator[tuple[int, int, list[str]]]:
    """Answer picture after picture into `desk.answers`; yields (done, of how many, what failed).

    In the end the folder holds masks.zip, coco.json and prompt.safetensors.

    Raises:
        InputError: no examples, no pictures, or too many.
    """
    files = check_count(list(targets or []), "pictures to segment")
    prompt = prompt_of(models, examples, wish)
    folder, predictor = desk.new_run(), models.get(wish.checkpoint)
    desk.answers, coco, failed = [], Coco(), list[str]()
    names = _names([Path(f) for f in files])
    try:
        for done, (name, file) in enumerate(zip(names, files, strict=True), 1):
            if stop.is_set():
                break
            try:
                picture = open_picture(file)
                check_paintings(name, picture.size, prompt, wish.tile)
                result = predictor.predict(picture, prompt, tile=wish.tile)
                desk.answers.append(Answer.write(folder / name, name, Path(file), result))
                coco.add(f"{name}{Path(file).suffix}", result)
            except InputError as error:
                failed.append(str(error))
            yield done, len(files), failed
    finally:  # whatever happens, what is done can be had
        coco.save(folder / "coco.json")
        prompt.save(folder / "prompt.safetensors")
        pack(folder / "masks.zip", masks_of(desk.answers))


def downloads(desk: Desk) -> list[str]:
    """Files of the last run."""
    folder = desk.folder / f"run{desk.runs}"
    return [
        str(folder / name)
        for name in ("masks.zip", "coco.json", "prompt.safetensors")
        if (folder / name).is_file()
    ]


def masks_of(answers: list[Answer]) -> Iterator[tuple[Path, str]]:
    """Files of results, and what they are called in a zip."""
    for one in answers:
        yield one.file("mask"), f"masks/{one.name}.png"
        yield one.file("confidence"), f"confidence/{one.name}.png"
        yield one.file("overlay"), f"overlays/{one.name}.jpg"


def _names(files: list[Path]) -> list[str]:
    """A name for each file, none twice, safe as a file's."""
    names: list[str] = []
    for file in files:
        stem = re.sub(r"[^\w-]+", "_", file.stem).strip(".")[:80] or "picture"
        name, number = stem, 1
        while name in names:
            number += 1
            name = f"{stem}-{number}"
        names.append(name)
    return names
