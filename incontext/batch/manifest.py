"""Manifest: an entry for every finished or failed picture, from the files of all runs and shards.

While a run is at work its writers keep journals in OUT/.run/I-of-N/; at its end, or at the start of
the one after a kill, they are folded into OUT/results.json, or OUT/results.I-of-N.json of a shard.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from incontext.batch.journal import Journal, Record, read_journal
from incontext.batch.records import (
    RESULTS,
    STATE,
    Entries,
    count,
    counts,
    journals,
    read,
    sources,
    states,
)
from incontext.batch.targets import WHOLE, Shard, Target, fingerprint
from incontext.errors import InputError
from incontext.files import (
    LOCK,
    atomic,
    check_same_settings,
    draft_path,
    exclusive,
    is_locked,
)
from incontext.inference.prompt import Prompt

PATIENCE = 30.0  # seconds that workers of a killed run get to end
PARTS = (".png", ".confidence.png", ".overlay.jpg")  # what `Segmentation.save` writes


@dataclass
class Manifest:
    """The settings of a run, and an entry for every finished or failed file of its shard."""

    folder: Path
    settings: dict[str, Any]
    ids: dict[str, Any]
    results: Entries = field(default_factory=Entries)
    failed: dict[str, str] = field(default_factory=dict)
    overwrite: bool = False  # nothing counts as finished
    shard: Shard = WHOLE
    spent: list[Path] = field(default_factory=list)  # files that the next `save` makes superfluous

    @classmethod
    def open(
        cls, folder: Path, settings: dict[str, Any], prompt: Prompt, overwrite: bool,
        shard: Shard = WHOLE,
    ) -> "Manifest":  # fmt: skip
        """Start a manifest, or go on with what the folder holds.

        With `overwrite` entries of the same settings stay too, until their picture is done again;
        those of other settings, or of a damaged file, are dropped.

        Raises:
            InputError: what it holds was made with other settings, or in another number of shards,
                or is damaged.
        """
        ids = {str(i): {"name": prompt.names[i], "color": prompt.colors[i]} for i in prompt.ids}
        settings, ids = json.loads(json.dumps([settings, ids]))
        manifest = cls(folder, settings, ids, overwrite=overwrite, shard=shard)
        others = counts(folder) - {1, shard.of}
        if others and shard.of > 1:
            raise InputError(
                f"{folder} holds results of {max(others)} shards; go on with --shard "
                f"I/{max(others)}, or join them first by a run without --shard"
            )
        for group in sources(folder, shard):
            manifest._take(group)
        return manifest

    def _take(self, group: Sequence[Path]) -> None:
        records = []
        for path in group:
            try:
                record = read(path)
            except FileNotFoundError:  # folded meanwhile by another shard, which had no right to it
                continue
            except InputError as error:
                if not self.overwrite:
                    raise InputError(
                        f"{error}; delete it, or pass overwrite (--overwrite)"
                    ) from None
                record = Record()
            # Entries of other settings bind nobody where there are none, or where they may go.
            same = record.settings == self.settings
            if not same and not self.overwrite and any(record.entries.values()):
                remedy = "pass overwrite (--overwrite), or another folder"
                check_same_settings(record.settings, self.settings, self.folder, remedy)
            if same:
                records.append(record)
            # A shard leaves alone what other shards may have to read.
            own = path.parent == self.state or self.shard.of == 1
            if path != self.path and (own or (self.overwrite and not same)):
                self.spent.append(path)
            if own:
                _sweep(self.folder, record)
        self.results.take(records, self.shard)

    @property
    def path(self) -> Path:
        """What is written at the end."""
        return self.folder / (RESULTS if self.shard.of == 1 else f"results.{self.shard.label}.json")

    @property
    def state(self) -> Path:
        """Where journals are."""
        return self.folder / STATE / self.shard.label

    @property
    def head(self) -> dict[str, Any]:
        """First line of every journal."""
        return {"settings": self.settings, "ids": self.ids}

    def finished(self, target: Target) -> bool:
        """Whether this very file was done and all that was written for it is still there.

        Raises:
            InputError: the name is taken by the results of another picture.
        """
        if self.overwrite or target.name not in self.results:
            return False
        entry = self.results[target.name]
        if entry["source"]["path"] != str(target.path):
            raise InputError(
                f"{self.folder} holds results named {target.name} of another picture, "
                f"{entry['source']['path']}; pass another folder for {target.path}, or "
                "overwrite (--overwrite)"
            )
        if entry["source"] != fingerprint(target.path):
            return False
        return all((self.folder / name).is_file() for name in entry["files"].values())

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """While writers are at work; their journals are folded whatever happens.

        Raises:
            OSError: the folder cannot be written, which shows before the work.
        """
        self.save()
        try:
            yield
        finally:
            written = journals(self.state)
            _wait_for(written, PATIENCE / 3)
            records = [read_journal(path) for path in written]
            self.failed |= self.results.take(records, self.shard)
            for record in records:
                _sweep(self.folder, record)
            self.spent = [path for path in written if not is_locked(path)]
            self.save()

    def journal(self) -> Journal:
        """A new one, for one writer."""
        return Journal(self.state, self.head)

    def save(self) -> None:
        """Write all entries, a line each, by name; the file appears whole or not at all."""
        head = json.dumps(self.head, indent=1).removesuffix("\n}")
        with atomic(self.path) as draft, draft.open("w", encoding="utf-8") as file:
            file.write(f'{head},\n "results": {{')
            for number, name in enumerate(sorted(self.results.texts)):
                comma = "," if number else ""
                file.write(f"{comma}\n  {json.dumps(name)}: {self.results.texts[name]}")
            failed = json.dumps(self.failed, indent=1, sort_keys=True)
            file.write(f'\n }},\n "failed": {failed}\n}}\n')
        while self.spent:
            self.spent.pop().unlink(missing_ok=True)
        _tidy(self.folder)


@contextmanager
def exclusive_run(folder: Path, shard: Shard = WHOLE) -> Iterator[None]:
    """One run at a time in a folder, or several of different shards of the same number.

    Raises:
        InputError: a run, or workers that a killed one left, might do the same pictures.
    """
    with exclusive(folder / STATE / shard.label):
        try:
            _check_others(folder, shard)
            yield
        finally:
            if not journals(folder / STATE / shard.label):
                (folder / STATE / shard.label / LOCK).unlink(missing_ok=True)
            _tidy(folder)


def _check_others(folder: Path, shard: Shard) -> None:
    others = [state for state in states(folder) if count(state.name) != shard.of]
    for state in others:
        if is_locked(state / LOCK):
            raise InputError(
                f"another run ({state.name} of all pictures) is using {folder}; wait for "
                "it, or stop it"
            )
    # Workers outlive a run that was killed, by what they are at; other shards have other pictures.
    theirs = [p for state in (folder / STATE / shard.label, *others) for p in journals(state)]
    if not _wait_for(theirs, PATIENCE):
        raise InputError(
            f"workers of an earlier run are still writing to {folder}; wait for them, or stop them"
        )


def _wait_for(journals: Sequence[Path], seconds: float) -> bool:
    """Whether the writers of these have ended, within so many seconds."""
    end = time.monotonic() + seconds
    while any(is_locked(path) for path in journals):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def _sweep(folder: Path, record: Record) -> None:
    """Remove drafts of pictures whose writer was killed at them."""
    for name in record.begun.keys() - record.entries.keys():
        path = folder / name
        for suffix in PARTS:
            with suppress(OSError):
                draft_path(path.with_name(path.name + suffix)).unlink()


def _tidy(folder: Path) -> None:
    """Remove the folders of journals where they are empty."""
    with suppress(OSError):
        for state in (folder / STATE).iterdir():
            with suppress(OSError):
                state.rmdir()
        (folder / STATE).rmdir()
