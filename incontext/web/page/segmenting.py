"""Segmenting: examples and images in, files of results out; shared by the tab and its endpoint."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from PIL import Image

from incontext import Coco, Example, InputError, Prompt
from incontext.web.file_names import client_name, client_names
from incontext.web.limits import check_count, check_paintings, open_image
from incontext.web.models import Models
from incontext.web.page.session import SEGMENT, ImageResult, Session, pack


@dataclass(frozen=True)
class SegmentRequest:
    """The options of a run."""

    checkpoint: str | None = None
    kind: str = "semantic"
    tile: int | None = None
    names: dict[int, str] = field(default_factory=dict)
    prompt: str | None = None  # a file, instead of examples
    min_presence: float = 0.5  # an id's presence below which its mask is empty


def build_prompt(models: Models, examples: Sequence[Example], options: SegmentRequest) -> Prompt:
    """Return the prompt: that of the file, or one made from the examples.

    Raises:
        InputError: there is neither, or the file is of another checkpoint.
    """
    predictor = models.get(options.checkpoint)
    if options.prompt:
        return predictor.load_prompt(options.prompt)
    if not examples:
        raise InputError("No example yet: paint on a picture what you mean.")
    return predictor.prompt(
        list(examples), kind=options.kind, names=options.names, crop=bool(options.tile)
    )


def segment(
    models: Models,
    session: Session,
    examples: Sequence[Example],
    targets: Sequence[str],
    options: SegmentRequest,
    stop: Event,
) -> Iterator[tuple[int, int, list[str]]]:
    """Segment image after image into `session.results`, and write masks.zip, coco.json and
    prompt.safetensors into the folder of the run.

    Yields:
        (images done, images in all, errors so far).

    Raises:
        InputError: no examples, no images, too many, or a presence out of range.
    """
    files = check_count(list(targets or []), "pictures to segment")
    predictor = models.get(options.checkpoint)
    predictor.check_presence(options.min_presence)
    prompt = build_prompt(models, examples, options)
    folder = session.new_run(SEGMENT)
    session.results, coco, failed = [], Coco(), list[str]()
    examples_used = [] if options.prompt else list(examples)
    session.asked = options.checkpoint, examples_used, bool(options.tile)
    names = _safe_names([Path(f) for f in files])
    sent_names = client_names(map(client_name, files))
    try:
        uploads = zip(names, sent_names, files, strict=True)
        for done, (name, sent_name, file) in enumerate(uploads, 1):
            if stop.is_set():
                break
            try:
                picture = open_image(file)
                check_paintings(sent_name, picture.size, prompt, options.tile)
                result = predictor.predict(
                    picture, prompt, tile=options.tile, min_presence=options.min_presence
                )
                session.results.append(
                    ImageResult.write(folder / name, name, Path(file), result, done)
                )
                coco.add(sent_name, result)
            except InputError as error:
                failed.append(str(error).replace(Path(file).name, sent_name))
            yield done, len(files), failed
    finally:  # results so far can be downloaded, whatever happens
        coco.save(folder / "coco.json")
        prompt.save(folder / "prompt.safetensors")
        pack(folder / "masks.zip", result_files(session.results))


def explain(
    models: Models, session: Session, result: ImageResult, at: tuple[int, int]
) -> list[tuple[Image.Image, str]]:
    """Return the examples with the places that voted for what is at a pixel (x, y) of a result.

    Raises:
        InputError: nothing was segmented there, or a prompt file was used instead of examples.
    """
    checkpoint, examples, crop = session.asked
    if not examples:
        raise InputError("A prompt file was used: it does not hold the examples' pictures.")
    restored = result.restore()
    index = int(restored.labels[at[1], at[0]])
    if not index:
        raise InputError("Nothing was segmented there: click on an object.")
    evidence = models.get(checkpoint).evidence(restored, examples, index, at=at, crop=crop)
    return [
        (evidence.overlay(number), f"example {number + 1}: {share:.0%} of its votes")
        for number, share in enumerate(evidence.shares)
    ]


def downloads(session: Session) -> list[str]:
    """Return the files of the last run."""
    folder = session.folders[SEGMENT]
    names = ("masks.zip", "coco.json", "prompt.safetensors", "examples.zip")
    return [str(folder / name) for name in names if (folder / name).is_file()]


def result_files(results: list[ImageResult]) -> Iterator[tuple[Path, str]]:
    """Yield the files of results with their names in a zip."""
    for result in results:
        yield result.file("mask"), f"masks/{result.name}.png"
        yield result.file("confidence"), f"confidence/{result.name}.png"
        yield result.file("overlay"), f"overlays/{result.name}.jpg"


def _safe_names(files: list[Path]) -> list[str]:
    """Return a name for each file, unique and safe as a file name."""
    names: list[str] = []
    for file in files:
        stem = re.sub(r"[^\w-]+", "_", file.stem).strip(".")[:80] or "picture"
        name, number = stem, 1
        while name in names:
            number += 1
            name = f"{stem}-{number}"
        names.append(name)
    return names
