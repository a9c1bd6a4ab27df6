"""Entries: what all files of results and journals in a folder say together.

OUT/results.json and OUT/results.I-of-N.json of shards are what runs leave; OUT/.run/I-of-N/*.jsonl
are journals of runs that are at work, or were killed.
"""

import json
import re
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from incontext.batch.journal import SUFFIX, Record, read_journal
from incontext.batch.targets import WHOLE, Shard
from incontext.errors import InputError
from incontext.files import changed_settings

RESULTS, STATE = "results.json", ".run"


class Entries(MutableMapping[str, dict[str, Any]]):
    """Entries by name, kept as JSON: a fifth of the memory that dicts take."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def __getitem__(self, name: str) -> dict[str, Any]:
        return json.loads(self.texts[name])

    def __setitem__(self, name: str, entry: Mapping[str, Any]) -> None:
        self.texts[name] = json.dumps(entry)

    def __delitem__(self, name: str) -> None:
        del self.texts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts)

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, records: Sequence[Record], shard: Shard = WHOLE) -> dict[str, str]:
        """Entries of writers that worked side by side; answers path → problem of what failed.

        What one of them finished counts, also where another failed at it or was killed.
        """
        lost: dict[str, tuple[str, str]] = {}
        done: set[str] = set()
        for record in records:
            for name, text in record.entries.items():
                if text is None:
                    lost[name] = record.failed[name]
                elif shard.holds(name):
                    self.texts[name] = text
                    done.add(name)
        for name in lost.keys() - done:
            self.texts.pop(name, None)
        return dict(lost[name] for name in sorted(lost.keys() - done) if shard.holds(name))


def sources(folder: Path, shard: Shard = WHOLE) -> list[list[Path]]:
    """Files that entries are in; those of a later group count where two have one picture.

    Of a single shard those that can hold its entries: its own, and those of runs without shards.
    """
    state = folder / STATE
    plain = [[folder / RESULTS], journals(state / WHOLE.label)]
    if shard.of > 1:
        own = folder / f"results.{shard.label}.json"
        return [*plain, [own], journals(state / shard.label)]
    shards = sorted(p for p in folder.glob("results.*.json") if count(p.name))
    rest = [p for one in states(folder) if one.name != WHOLE.label for p in journals(one)]
    return [*plain, shards, rest]


def read(path: Path) -> Record:
    """What a file of results or a journal says.

    Raises:
        InputError: it is damaged.
    """
    if path.suffix == SUFFIX:
        return read_journal(path)
    if not path.exists():
        return Record()
    try:
        # Entries become text again one by one, so that they are never all there as dicts.
        found = json.loads(path.read_text(encoding="utf-8"), object_hook=_packed)
        record = Record(dict(found["settings"]), dict(found["ids"]), dict(found["results"]))
        for text in record.entries.values():
            if not isinstance(text, str):
                raise ValueError("an entry without a source or files")
            entry = json.loads(text)
            _ = entry["size"], dict(entry["files"])
            _ = [entry["ids"][index]["pixels"] for index in record.ids]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path}: damaged or not of `incontext segment` ({type(error).__name__}: {error})"
        ) from None
    return record


def read_all(folder: Path) -> tuple[dict[str, Any], Entries]:
    """Ids and entries of a folder, whatever runs and shards wrote them, also while they work.

    Raises:
        InputError: nothing there, something damaged, or entries of different settings.
    """
    while True:
        try:
            return _read_all(folder)
        except FileNotFoundError:  # folded between listing and reading: look again
            continue


def _read_all(folder: Path) -> tuple[dict[str, Any], Entries]:
    entries, head = Entries(), Record()
    for group in sources(folder):
        records = [read(path) for path in group]
        for record in records:
            if not any(record.entries.values()):  # binds nobody
                continue
            if head.entries and record.settings != head.settings:
                keys = ", ".join(changed_settings(record.settings, head.settings))
                raise InputError(f"{folder} holds results of different settings ({keys})")
            head = record
        entries.take([r for r in records if not head.entries or r.settings == head.settings])
    return head.ids, entries


def _packed(found: dict[str, Any]) -> Any:
    source = found.get("source")
    entry = isinstance(source, dict) and "path" in source and "files" in found
    return json.dumps(found) if entry else found


def journals(state: Path) -> list[Path]:
    """Of a shard."""
    return [path for path in _inside(state) if path.suffix == SUFFIX]


def states(folder: Path) -> list[Path]:
    """Where journals of any run or shard are."""
    return _inside(folder / STATE)


def _inside(folder: Path) -> list[Path]:
    """Sorted; nothing where the folder is gone, which others may remove at any time."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def count(name: str) -> int:
    """N in the name of a shard's file or folder; 0 in others."""
    found = re.fullmatch(r"(?:results\.)?[0-9]+-of-([0-9]+)(?:\.json)?", name)
    return int(found[1]) if found else 0


def counts(folder: Path) -> set[int]:
    """Numbers of shards that something is left of."""
    left = [
        *folder.glob("results.*.json"),
        *(state for state in states(folder) if journals(state)),
    ]
    return {count(path.name) for path in left} - {0}
