"""Records: what all files of results and journals in a folder hold together, one for each image.

OUT/results.json and OUT/results.I-of-N.json of shards are what runs leave; OUT/.run/I-of-N/*.jsonl
are journals of runs that are at work, or were killed.
"""

import json
import re
from collections.abc import Container, Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from incontext.batch.inputs import UNSHARDED, Shard, is_gone
from incontext.batch.journal import SUFFIX, JournalContent, read_journal
from incontext.errors import InputError
from incontext.files import changed_settings

RESULTS, STATE = "results.json", ".run"


class ResultRecords(MutableMapping[str, dict[str, Any]]):
    """Records of images by name, kept as JSON: a fifth of the memory that dicts take."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def __getitem__(self, name: str) -> dict[str, Any]:
        return json.loads(self.texts[name])

    def __setitem__(self, name: str, record: Mapping[str, Any]) -> None:
        self.texts[name] = json.dumps(record)

    def __delitem__(self, name: str) -> None:
        del self.texts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts)

    def __len__(self) -> int:
        return len(self.texts)

    def merge(self, contents: Sequence[JournalContent], shard: Shard = UNSHARDED) -> dict[str, str]:
        """Add what writers that worked side by side recorded; return path → error of what failed.

        What one of them finished counts, even if another failed at it or was killed.
        """
        failures: dict[str, tuple[str, str]] = {}
        finished_names: set[str] = set()
        for content in contents:
            for name, text in content.records.items():
                if text is None:
                    failures[name] = content.failures[name]
                elif shard.holds(name):
                    self.texts.pop(name, None)  # the order is that of recording
                    self.texts[name] = text
                    finished_names.add(name)
        failed_names = failures.keys() - finished_names
        for name in failed_names:
            self.texts.pop(name, None)
        return dict(failures[name] for name in sorted(failed_names) if shard.holds(name))

    def drop_duplicates(self, failures: Container[str] = ()) -> list[str]:
        """Keep one record for each path, that recorded last; return the names of the others.

        An image is named anew when another of the same stem comes beside it.

        Args:
            failures: paths whose records are void.
        """
        paths, dropped = set[int](), []  # hashes: paths of a million images take much memory
        for name in reversed(list(self.texts)):
            path = self[name]["source"]["path"]
            if hash(path) in paths or path in failures:
                dropped.append(name)
                del self.texts[name]
            paths.add(hash(path))
        return dropped

    def drop_gone(self, folders: Sequence[Path] | None = None) -> list[str]:
        """Drop records of images that are gone; their files stay. Return the images' paths.

        Args:
            folders: only of images below one of these; None: of all.
        """
        gone = []
        for name in list(self.texts):
            path = self[name]["source"]["path"]
            inside = folders is None or any(Path(path).is_relative_to(f) for f in folders)
            if inside and is_gone(path):
                gone.append(path)
                del self.texts[name]
        return sorted(gone)


def record_files(folder: Path, shard: Shard = UNSHARDED) -> list[list[Path]]:
    """Return groups of files with records; a later group counts if two record the same image.

    For a shard only the files that can hold its records: its own, and those of unsharded runs.
    """
    state = folder / STATE
    groups = [[folder / RESULTS], journals(state / UNSHARDED.label)]
    if shard.count > 1:
        return [*groups, [folder / results_name(shard)], journals(state / shard.label)]
    shard_results = sorted(p for p in folder.glob("results.*.json") if shard_count(p.name))
    shard_states = (path for path in states(folder) if path.name != UNSHARDED.label)
    return [*groups, shard_results, [path for state in shard_states for path in journals(state)]]


def results_name(shard: Shard) -> str:
    """Return the name of the file that a shard's results are written to."""
    return RESULTS if shard.count == 1 else f"results.{shard.label}.json"


def read(path: Path) -> JournalContent:
    """Read a file of results or a journal.

    Raises:
        InputError: it is damaged.
    """
    if path.suffix == SUFFIX:
        return read_journal(path)
    if not path.exists():
        return JournalContent()
    try:
        # Records become text again one by one, so that they are never all in memory as dicts.
        data = json.loads(path.read_bytes(), object_hook=_pack_record)
        content = JournalContent(dict(data["settings"]), dict(data["ids"]), dict(data["results"]))
        content.earlier_failures = {str(p): str(why) for p, why in data.get("failed", {}).items()}
        for text in content.records.values():
            if not isinstance(text, str):
                raise ValueError("an entry without a source or files")
            record = json.loads(text)
            path_text = record["source"]["path"]
            if not path_text or not isinstance(path_text, str):
                raise ValueError(f"an entry whose image's path is {path_text!r}")
            _ = record["size"], dict(record["files"])
            _ = [record["ids"][index]["pixels"] for index in content.ids]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path}: damaged or not of `incontext segment` ({type(error).__name__}: {error})"
        ) from None
    return content


def read_all(folder: Path) -> tuple[dict[str, Any], ResultRecords]:
    """Read ids and records of a folder, whatever runs and shards wrote them, even while they work.

    Raises:
        InputError: nothing there, something damaged, or records of different settings.
    """
    while True:
        try:
            return _read_all(folder)
        except FileNotFoundError:  # folded between listing and reading: look again
            continue


def _read_all(folder: Path) -> tuple[dict[str, Any], ResultRecords]:
    records, head = ResultRecords(), JournalContent()
    for group in record_files(folder):
        contents = [read(path) for path in group]
        for content in contents:
            if not any(content.records.values()):  # without results its settings do not matter
                continue
            if head.records and (keys := changed_settings(content.settings, head.settings)):
                raise InputError(
                    f"{folder} holds results of different settings ({', '.join(keys)})"
                )
            head = content
        records.merge([c for c in contents if not head.records or _same_run(c, head)])
    records.drop_duplicates()
    return head.ids, records


def _same_run(a: JournalContent, b: JournalContent) -> bool:
    return not changed_settings(a.settings, b.settings)


def _pack_record(data: dict[str, Any]) -> Any:
    """Return the record of an image as JSON, other objects as they are."""
    source = data.get("source")
    is_record = isinstance(source, dict) and "path" in source and "files" in data
    return json.dumps(data) if is_record else data


def journals(state: Path) -> list[Path]:
    """Return the journal files of one shard, sorted."""
    return [path for path in _list_folder(state) if path.suffix == SUFFIX]


def states(folder: Path) -> list[Path]:
    """Return the folders with journals of all runs and shards, sorted."""
    return _list_folder(folder / STATE)


def _list_folder(folder: Path) -> list[Path]:
    """Return what a folder holds, sorted; nothing if another run has just removed it."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def shard_count(name: str) -> int:
    """Return N of the name of a shard's file or folder, "I-of-N"; 0 for other names."""
    match = re.fullmatch(r"(?:results\.)?[0-9]+-of-([0-9]+)(?:\.json)?", name)
    return int(match[1]) if match else 0


def shard_counts(folder: Path) -> set[int]:
    """Return the numbers of shards of all runs that left something in a folder."""
    paths = [
        *folder.glob("results.*.json"),
        *(state for state in states(folder) if journals(state)),
    ]
    return {shard_count(path.name) for path in paths} - {0}
