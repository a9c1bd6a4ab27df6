"""An evaluation's work: shared out among processes, noted as it is done, complete or refused."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from eval.core.journal import Journal
from eval.core.processes import Processes
from incontext.errors import InputError


@dataclass(frozen=True)
class Part:
    """Items under one key, by name; `make()` prepares what answers an item, by number, with a row
    that JSON can hold. It is called only where something is left to do."""

    key: str
    names: Sequence[str]
    make: Callable[[], Callable[[int], Any]]


def complete(
    parts: Sequence[Part], name: str, about: dict[str, Any], out: Path | None,
    processes: Processes,
) -> dict[str, list[Any]]:  # fmt: skip
    """Rows of all items by key, those done before from the journal in `out`.

    `about` tells this evaluation from others; the names of all items count as well.

    Raises:
        InputError: another evaluation in `out`, nothing to do, or another process ended early.
    """
    if out is None and processes.count > 1:
        raise InputError("several processes meet in a folder: pass --out")
    empty = [part.key for part in parts if not part.names]
    if empty or not parts:
        raise InputError(f"{name}: nothing to evaluate ({', '.join(empty) or 'no part'})")
    listed = json.dumps([[part.key, list(part.names)] for part in parts])
    about = {**about, "items": hashlib.sha256(listed.encode()).hexdigest()[:16]}
    with tempfile.TemporaryDirectory() as scratch:
        place = out or Path(scratch)
        journal = Journal(place, name, about, processes.rank)
        processes.wait()  # all share out the same, before anybody adds to it
        for part in parts:
            _do(part, journal, processes)
        processes.wait()
        journal = Journal(place, name, about, processes.rank)
    rows = {part.key: journal.of(part.key) for part in parts}
    lacking = [part.key for part in parts if len(rows[part.key]) < len(part.names)]
    if lacking:
        raise InputError(f"{lacking[0]}: not all was done; give the command again to go on")
    return rows


def _do(part: Part, journal: Journal, processes: Processes) -> None:
    todo = [n for n in range(len(part.names)) if (part.key, n) not in journal.rows]
    mine = processes.share(todo)
    answer = part.make() if mine else None
    for number in tqdm(mine, desc=part.key, disable=None if processes.first else True):
        assert answer
        journal.add(part.key, number, answer(number))
