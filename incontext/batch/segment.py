"""Folders of images: segment them one batch at a time, write results, report every file."""

import errno
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from PIL import Image

from incontext.batch.inputs import InputImage, file_hash, fingerprint
from incontext.batch.journal import Journal
from incontext.batch.manifest import Manifest
from incontext.errors import InputError
from incontext.images.image import read_image
from incontext.inference.segmentation import Segmentation

if TYPE_CHECKING:
    from incontext.inference.onnx.predictor import OnnxPredictor
    from incontext.inference.predictor import Predictor
    from incontext.inference.prompt import Prompt

BATCH_PIXELS = 50_000_000  # images are held in memory until this many are read

# Called once for every image, with "" or with what went wrong.
OnResult: TypeAlias = Callable[[InputImage, str], None]


def segment_files(
    predictor: "Predictor | OnnxPredictor",
    prompt: "Prompt",
    images: Iterable[InputImage],
    manifest: Manifest,
    *,
    on_result: OnResult = lambda image, error_text: None,
    **options: Any,
) -> None:
    """Segment images, write their files, keep the manifest. A bad image does not stop the others.

    Args:
        options: of `write_results`.

    Raises:
        OSError: results cannot be written; what was finished stays.
    """
    with manifest.collect_journals(), manifest.open_journal() as journal:
        write_results(
            predictor, prompt, images, manifest.folder, journal, on_result=on_result, **options
        )


def write_results(
    predictor: "Predictor | OnnxPredictor",
    prompt: "Prompt",
    images: Iterable[InputImage],
    folder: Path,
    journal: Journal,
    *,
    on_result: OnResult,
    batch_size: int = 8,
    **options: Any,
) -> None:
    """Do the work of one process: write files of results, then a line in its journal for each.

    Args: see `segment_files`; the other options are of `Predictor.predict`.
    """
    remaining = iter(images)
    while batch := list(islice(remaining, batch_size)):
        journal.begin(batch)
        for loaded_images in _load(batch, journal, on_result):
            # One result at a time: those of huge images are larger than the images.
            pixels = (loaded.image for loaded in loaded_images)
            results = predictor.predict(pixels, prompt, batch_size=batch_size, **options)
            for loaded, result in zip(loaded_images, results, strict=True):
                _write(loaded, result, folder, journal, on_result)


def _write(
    loaded: "_LoadedImage", result: Segmentation, folder: Path, journal: Journal,
    on_result: OnResult,
) -> None:  # fmt: skip
    error_text = ""
    try:
        files = result.save(folder, loaded.input.name)
        record = result_record(result, loaded.source, files, folder, loaded.notes)
        journal.finish(loaded.input, record)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:  # a full disk: the others will not fit either
            raise
        error_text = f"{loaded.input.path}: the name is too long to name results after it"
        journal.fail(loaded.input, error_text)
    on_result(loaded.input, error_text)


def result_record(
    result: Segmentation, source: dict[str, Any], files: dict[str, Path], folder: Path,
    notes: list[str],
) -> dict[str, Any]:  # fmt: skip
    """Return the record of one image in `results.json`: size, files, and what is said of ids."""
    record: dict[str, Any] = {
        "source": source,
        "size": [result.image.width, result.image.height],
        "files": {part: str(path.relative_to(folder)) for part, path in files.items()},
        "confidence": round(result.mean_confidence, 4),
        "score": round(result.score, 4),
        "ids": {
            str(index): {
                "pixels": int(result.mask(index).sum()),
                "presence": round(presence, 4),
                **({"quality": round(q[index], 4)} if index in (q := result.quality) else {}),
            }
            for index, presence in result.presence.items()
        },
    }
    return {**record, "notes": notes} if notes else record


def _read(path: Path) -> tuple[dict[str, Any], Image.Image]:
    """Return what tells a file from an edited one, and its pixels.

    Raises:
        InputError: it cannot be read.
    """
    source: dict[str, Any] = {}
    # Before reading: a file edited in between counts as changed the next time.
    with suppress(FileNotFoundError, IsADirectoryError, PermissionError):  # reading says it better
        source = {**fingerprint(path), "sha256": file_hash(path)}
    return source, read_image(path)


@dataclass(frozen=True)
class _LoadedImage:
    """An input image that could be read; `source` is the file's fingerprint before reading."""

    input: InputImage
    source: dict[str, Any]
    image: Image.Image
    notes: list[str]


def _load(
    images: Sequence[InputImage], journal: Journal, on_result: OnResult
) -> Iterator[list[_LoadedImage]]:
    """Yield the images that can be read, together unless they are huge; report the others."""
    batch: list[_LoadedImage] = []
    for image in images:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                source, pixels = _read(image.path)
            except (InputError, OSError, MemoryError) as error:
                error_text = str(error) or type(error).__name__
                journal.fail(image, error_text)
                on_result(image, error_text)
                continue
        notes = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
        batch.append(_LoadedImage(image, source, pixels, notes))
        if sum(loaded.image.width * loaded.image.height for loaded in batch) > BATCH_PIXELS:
            yield batch
            batch = []
    if batch:
        yield batch
