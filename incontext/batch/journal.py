"""Journal: what one writer has finished, a line each, so that a kill loses nothing."""

import json
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from incontext.batch.inputs import InputImage
from incontext.errors import InputError
from incontext.files import name_errors, try_lock

SUFFIX = ".jsonl"


class Journal:
    """A file of JSON lines that one process appends to; a line counts once it is whole.

    The first line holds the settings; then there is one line for each batch that is begun, and one
    for each image that is done or failed. The file is locked while its writer lives.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, folder: Path, head: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{uuid.uuid4().hex}{SUFFIX}"
        self.file = self.path.open("xb")
        try_lock(self.file)
        self._write(head)

    def begin(self, images: Sequence[InputImage]) -> None:
        """Record that these images are being processed; if the process dies, one of them did it."""
        self._write({"begun": [image.name for image in images]})

    def finish(self, image: InputImage, record: Mapping[str, Any]) -> None:
        """Record that all files of an image are written."""
        self._write({"done": image.name, "entry": record})

    def fail(self, image: InputImage, error_text: str) -> None:
        """Record why an image could not be done; results of it from an earlier run are void."""
        self._write({"failed": image.name, "path": str(image.path), "why": error_text})

    def _write(self, line: Mapping[str, Any]) -> None:
        with name_errors(self.path):
            self.file.write(json.dumps(line).encode() + b"\n")
            self.file.flush()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # a full disk: the error was raised where the line was written
            self.file.close()


@dataclass
class JournalContent:
    """Content of a journal, or of a file of results.

    Attributes:
        settings, ids: of the run.
        records: name → record of the image as JSON, or None if it failed.
        failures: name → path and error text.
        earlier_failures: path → error text, of a file of results.
        attempts: name → how often the image was begun.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    ids: dict[str, Any] = field(default_factory=dict)
    records: dict[str, str | None] = field(default_factory=dict)
    failures: dict[str, tuple[str, str]] = field(default_factory=dict)
    earlier_failures: dict[str, str] = field(default_factory=dict)
    attempts: Counter[str] = field(default_factory=Counter)


def read_journal(path: Path) -> JournalContent:
    """Read a journal up to its last whole line.

    Raises:
        InputError: a line that is damaged otherwise than by being cut off.
        FileNotFoundError: it is gone.
    """
    content = JournalContent()
    with path.open("rb") as file:
        for number, line in enumerate(file):
            if not line.endswith(b"\n"):  # cut off
                break
            try:
                _add_line(content, json.loads(line), number)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise InputError(
                    f"{path}: line {number + 1} is damaged ({type(error).__name__}: {error})"
                ) from None
    return content


def _add_line(content: JournalContent, line: dict[str, Any], number: int) -> None:
    if number == 0:
        content.settings, content.ids = dict(line["settings"]), dict(line["ids"])
    elif "done" in line:
        _ = line["entry"]["source"]["path"]
        content.records[line["done"]] = json.dumps(line["entry"])
    elif "failed" in line:
        content.records[line["failed"]] = None
        content.failures[line["failed"]] = str(line["path"]), str(line["why"])
    else:
        content.attempts.update(line["begun"])
