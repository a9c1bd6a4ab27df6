"""Journal: what one writer has finished, a line each, so that a kill loses nothing."""

import json
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from incontext.batch.targets import Target
from incontext.errors import InputError
from incontext.files import try_lock

SUFFIX = ".jsonl"


class Journal:
    """A file of JSON lines that one process appends to; a line counts once it is whole.

    The first line says the settings, then one line for each batch that is begun, and one for each
    picture that is done or failed. The file is locked while its writer lives.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, folder: Path, head: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{uuid.uuid4().hex}{SUFFIX}"
        self.file = self.path.open("xb")
        try_lock(self.file)
        self._write(head)

    def begin(self, targets: Sequence[Target]) -> None:
        """These are worked on from now on: what kills the process is one of them."""
        self._write({"begun": [target.name for target in targets]})

    def done(self, target: Target, entry: Mapping[str, Any]) -> None:
        """All files of a picture are written."""
        self._write({"done": target.name, "entry": entry})

    def fail(self, target: Target, text: str) -> None:
        """Note what kept a file from being done; results of it from an earlier run are void."""
        self._write({"failed": target.name, "path": str(target.path), "why": text})

    def _write(self, line: Mapping[str, Any]) -> None:
        self.file.write(json.dumps(line).encode() + b"\n")
        self.file.flush()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # a full disk: the error was raised where the line was written
            self.file.close()


@dataclass
class Record:
    """What a journal, or a file of results, says.

    Attributes:
        settings, ids: of the run.
        entries: name → entry as JSON, or None where the picture failed.
        failed: name → path, and what kept it from being done.
        begun: name → how often it was begun.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    ids: dict[str, Any] = field(default_factory=dict)
    entries: dict[str, str | None] = field(default_factory=dict)
    failed: dict[str, tuple[str, str]] = field(default_factory=dict)
    begun: Counter[str] = field(default_factory=Counter)


def read_journal(path: Path) -> Record:
    """What a journal says up to its last whole line.

    Raises:
        InputError: a line that is damaged otherwise than by being cut off.
        FileNotFoundError: it is gone.
    """
    record = Record()
    with path.open("rb") as file:
        for number, line in enumerate(file):
            if not line.endswith(b"\n"):  # cut off
                break
            try:
                _take(record, json.loads(line), number)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise InputError(
                    f"{path}: line {number + 1} is damaged ({type(error).__name__}: {error})"
                ) from None
    return record


def _take(record: Record, line: dict[str, Any], number: int) -> None:
    if number == 0:
        record.settings, record.ids = dict(line["settings"]), dict(line["ids"])
    elif "done" in line:
        record.entries[line["done"]] = json.dumps(line["entry"])
    elif "failed" in line:
        record.entries[line["failed"]] = None
        record.failed[line["failed"]] = str(line["path"]), str(line["why"])
    else:
        record.begun.update(line["begun"])
