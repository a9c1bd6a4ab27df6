"""Work of an evaluation: divided among processes, recorded as it is done, complete or refused."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from eval.core.journal import EpisodeJournal
from eval.core.processes import Processes
from incontext.errors import InputError


@dataclass(frozen=True)
class Task:
    """Named items under one key.

    Attributes:
        make_worker: returns a function from an item's number to its row, a value that JSON can
            hold. It is called only if items are left to do, so it may load models and data.
    """

    key: str
    names: Sequence[str]
    make_worker: Callable[[], Callable[[int], Any]]


def run_tasks(
    tasks: Sequence[Task], name: str, run_settings: dict[str, Any], out: Path | None,
    processes: Processes,
) -> dict[str, list[Any]]:  # fmt: skip
    """Return the rows of all items by key; rows of an earlier run come from the journal in `out`.

    Args:
        name: of the journal.
        run_settings: what identifies this evaluation, besides the names of its items.

    Raises:
        InputError: another evaluation in `out`, nothing to do, or another process ended early.
    """
    if out is None and processes.count > 1:
        raise InputError("several processes meet in a folder: pass --out")
    empty = [task.key for task in tasks if not task.names]
    if empty or not tasks:
        raise InputError(f"{name}: nothing to evaluate ({', '.join(empty) or 'no part'})")
    items = json.dumps([[task.key, list(task.names)] for task in tasks])
    run_settings = {**run_settings, "items": hashlib.sha256(items.encode()).hexdigest()[:16]}
    with tempfile.TemporaryDirectory() as scratch:
        folder = out or Path(scratch)
        journal = EpisodeJournal(folder, name, run_settings, processes.rank)
        processes.wait()  # all divide the same remainder, before any of them adds to the journal
        for task in tasks:
            _run(task, journal, processes)
        processes.wait()
        journal = EpisodeJournal(folder, name, run_settings, processes.rank)
    rows = {task.key: journal.rows_of(task.key) for task in tasks}
    incomplete = [task.key for task in tasks if len(rows[task.key]) < len(task.names)]
    if incomplete:
        raise InputError(f"{incomplete[0]}: not all was done; give the command again to go on")
    return rows


def _run(task: Task, journal: EpisodeJournal, processes: Processes) -> None:
    """Do this process's share of what the journal lacks."""
    remaining = [n for n in range(len(task.names)) if (task.key, n) not in journal.rows]
    numbers = processes.share(remaining)
    worker = task.make_worker() if numbers else None
    for number in tqdm(numbers, desc=task.key, disable=None if processes.first else True):
        assert worker
        journal.add(task.key, number, worker(number))
