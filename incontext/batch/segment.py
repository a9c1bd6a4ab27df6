"""Folders of pictures: segment them one batch at a time, write results, report every file."""

import errno
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from incontext.batch.journal import Journal
from incontext.batch.manifest import Manifest
from incontext.batch.targets import Target, fingerprint
from incontext.errors import InputError
from incontext.images.image import read_image
from incontext.inference.predictor import Predictor
from incontext.inference.prompt import Prompt
from incontext.inference.segmentation import Segmentation

BATCH_PIXELS = 50_000_000  # pictures are held in memory until so many are read

Tell = Callable[[Target, str], None]


def segment_files(
    predictor: Predictor,
    prompt: Prompt,
    targets: Iterable[Target],
    manifest: Manifest,
    *,
    tell: Tell = lambda target, text: None,
    **options: Any,
) -> None:
    """Segment targets, write their files, keep the manifest. A bad picture does not stop the rest.

    Args:
        tell: called once for every target, with "" or with what went wrong.
        options: of `write_results`.

    Raises:
        OSError: results cannot be written; what was finished stays.
    """
    with manifest.collecting(), manifest.journal() as journal:
        write_results(predictor, prompt, targets, manifest.folder, journal, tell=tell, **options)


def write_results(
    predictor: Predictor,
    prompt: Prompt,
    targets: Iterable[Target],
    folder: Path,
    journal: Journal,
    *,
    tell: Tell,
    batch_size: int = 8,
    **options: Any,
) -> None:
    """The work of one process: files of results, then a line in its journal.

    Args: see `segment_files`; the other options are of `Predictor.predict`.
    """
    rest = iter(targets)
    while several := list(islice(rest, batch_size)):
        journal.begin(several)
        for batch in _readable(several, journal, tell):
            # One result at a time: those of huge pictures are larger than the pictures.
            pictures = (read.picture for read in batch)
            results = predictor.predict(pictures, prompt, batch_size=batch_size, **options)
            for read, result in zip(batch, results, strict=True):
                _write(read, result, folder, journal, tell)


def _write(read: "_Read", result: Segmentation, folder: Path, journal: Journal, tell: Tell) -> None:
    text = ""
    try:
        files = result.save(folder, read.target.name)
        journal.done(read.target, describe(result, read.source, files, folder, read.notes))
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:  # a full disk: the rest will not fit
            raise
        text = f"{read.target.path}: the name is too long to name results after it"
        journal.fail(read.target, text)
    tell(read.target, text)


def describe(result: Segmentation, source: dict[str, Any], files: dict[str, Path], folder: Path,
             notes: list[str]) -> dict[str, Any]:  # fmt: skip
    """Entry of one picture in `results.json`: size, files, and for each id area and presence."""
    entry: dict[str, Any] = {
        "source": source,
        "size": [result.picture.width, result.picture.height],
        "files": {what: str(path.relative_to(folder)) for what, path in files.items()},
        "confidence": round(float(result.confidence.mean()), 4),
        "ids": {
            str(index): {"pixels": int(result.mask(index).sum()), "presence": round(presence, 4)}
            for index, presence in result.presence.items()
        },
    }
    return {**entry, "notes": notes} if notes else entry


@dataclass(frozen=True)
class _Read:
    """A target whose picture could be read; `source` is the file as it was then."""

    target: Target
    source: dict[str, Any]
    picture: Image.Image
    notes: list[str]


def _readable(targets: Sequence[Target], journal: Journal, tell: Tell) -> Iterator[list[_Read]]:
    """Pictures that could be read, at once unless they are huge; the others failed."""
    batch: list[_Read] = []
    for target in targets:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                # Before reading: a file edited in between counts as changed the next time.
                source = fingerprint(target.path)
                picture = read_image(target.path)
            except (InputError, OSError, MemoryError) as error:
                text = str(error) or type(error).__name__
                journal.fail(target, text)
                tell(target, text)
                continue
        notes = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
        batch.append(_Read(target, source, picture, notes))
        pixels = sum(read.picture.width * read.picture.height for read in batch)
        if pixels > BATCH_PIXELS:
            yield batch
            batch = []
    if batch:
        yield batch
