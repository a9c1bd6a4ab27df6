"""Manifest: a record of every finished or failed image, from the files of all runs and shards.

While a run is at work its writers keep journals in OUT/.run/I-of-N/. At its end, or at the start of
the next run after a kill, they are folded into OUT/results.json, or OUT/results.I-of-N.json of a
shard.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from incontext.batch.inputs import (
    UNSHARDED,
    InputImage,
    Shard,
    fingerprint,
    is_gone,
    is_same_file,
    is_void,
)
from incontext.batch.journal import Journal, JournalContent, read_journal
from incontext.batch.records import (
    STATE,
    ResultRecords,
    journals,
    read,
    record_files,
    results_name,
    shard_count,
    shard_counts,
    states,
)
from incontext.errors import InputError
from incontext.files import (
    LOCK,
    atomic,
    changed_settings,
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
    """The settings of a run, and a record of every finished or failed image of its shard.

    Attributes:
        failures: path → error text, of earlier runs too; dropped once the image is done or gone.
        overwrite: nothing counts as finished.
        obsolete_files: removed by the next `save`, which holds what they hold.
    """

    folder: Path
    settings: dict[str, Any]
    ids: dict[str, Any]
    results: ResultRecords = field(default_factory=ResultRecords)
    failures: dict[str, str] = field(default_factory=dict)
    overwrite: bool = False
    shard: Shard = UNSHARDED
    obsolete_files: list[Path] = field(default_factory=list)

    @classmethod
    def open(
        cls, folder: Path, settings: dict[str, Any], prompt: Prompt, overwrite: bool,
        shard: Shard = UNSHARDED,
    ) -> "Manifest":  # fmt: skip
        """Start a manifest, or continue with what the folder holds.

        With `overwrite` records of the same settings stay too, until their image is done again;
        those of other settings, or of a damaged file, are dropped.

        Raises:
            InputError: what it holds was made with other settings, or in another number of shards,
                or is damaged.
        """
        ids = {str(i): {"name": prompt.names[i], "color": prompt.colors[i]} for i in prompt.ids}
        settings, ids = json.loads(json.dumps([settings, ids]))
        manifest = cls(folder, settings, ids, overwrite=overwrite, shard=shard)
        other_counts = shard_counts(folder) - {1, shard.count}
        if other_counts and shard.count > 1:
            raise InputError(
                f"{folder} holds results of {max(other_counts)} shards; go on with --shard "
                f"I/{max(other_counts)}, or join them first by a run without --shard"
            )
        for group in record_files(folder, shard):
            manifest._load(group)
        manifest._drop_duplicates()
        manifest.failures = {p: t for p, t in manifest.failures.items() if not is_void(p)}
        return manifest

    def _load(self, paths: Sequence[Path]) -> None:
        contents = []
        for path in paths:
            content = self._read(path)
            if content is None:
                continue
            same_settings = not changed_settings(content.settings, self.settings)
            # Other settings do not matter where there are no results, or where they may go.
            if not self.overwrite and any(content.records.values()):
                remedy = "choose another folder, or begin anew with overwrite (--overwrite)"
                check_same_settings(content.settings, self.settings, self.folder, remedy)
            # A shard does not touch what other shards may have to read.
            own = path.parent == self.state or self.shard.count == 1
            if same_settings:
                if not (own or path == self.path):
                    content.earlier_failures.clear()
                contents.append(content)
            if path != self.path and (own or (self.overwrite and not same_settings)):
                self.obsolete_files.append(path)
            if own:
                _remove_drafts(self.folder, content)
        self._merge(contents)

    def _merge(self, contents: Sequence[JournalContent]) -> None:
        """Add what writers that worked side by side recorded."""
        for content in contents:
            self.failures |= content.earlier_failures
        failures = self.results.merge(contents, self.shard)
        if self.failures:
            for text in chain.from_iterable(content.records.values() for content in contents):
                if text is not None:
                    self.failures.pop(json.loads(text)["source"]["path"], None)
        self.failures |= failures

    def _drop_duplicates(self) -> None:
        """Drop records of images that are known by another name now, or failed, and their files."""
        for name in self.results.drop_duplicates(self.failures):
            path = self.folder / name
            if not Path(name).is_absolute() and ".." not in path.parts[len(self.folder.parts) :]:
                self.obsolete_files += [path.with_name(path.name + part) for part in PARTS]

    def _read(self, path: Path) -> JournalContent | None:
        """Read a file of records; None if another run has folded it meanwhile."""
        try:
            return read(path)
        except FileNotFoundError:
            return None
        except InputError as error:
            if not self.overwrite:
                raise InputError(f"{error}; delete it, or pass overwrite (--overwrite)") from None
            return JournalContent()

    @property
    def path(self) -> Path:
        """The file of results that is written at the end."""
        return self.folder / results_name(self.shard)

    @property
    def state(self) -> Path:
        """The folder of the journals."""
        return self.folder / STATE / self.shard.label

    @property
    def head(self) -> dict[str, Any]:
        """The first line of every journal."""
        return {"settings": self.settings, "ids": self.ids}

    def is_finished(self, image: InputImage) -> bool:
        """Return whether this very file was done and all that was written for it still exists.

        Raises:
            InputError: the name is taken by the results of another image.
        """
        if self.overwrite or image.name not in self.results:
            return False
        record = self.results[image.name]
        if not is_same_file(record["source"], image.path):
            raise InputError(
                f"{self.folder} holds results named {image.name} of another picture, "
                f"{record['source']['path']}; pass another folder for {image.path}, or "
                "overwrite (--overwrite)"
            )
        files = [self.folder / name for name in record["files"].values()]
        if is_gone(str(image.path)):  # a broken link: it cannot be done again, its results stay
            return all(file.is_file() for file in files)
        now = fingerprint(image.path)
        if any(record["source"][key] != now[key] for key in ("bytes", "modified_ns")):
            return False
        return all(file.is_file() for file in files)

    @contextmanager
    def collect_journals(self) -> Iterator[None]:
        """Let writers work in the block; at its end fold their journals, whatever happened.

        Raises:
            OSError: the folder cannot be written, which shows before the work.
        """
        self.save()
        try:
            yield
        finally:
            paths = journals(self.state)
            _wait_for(paths, PATIENCE / 3)
            contents = [read_journal(path) for path in paths]
            self._merge(contents)
            for content in contents:
                _remove_drafts(self.folder, content)
            self.obsolete_files = [path for path in paths if not is_locked(path)]
            self._drop_duplicates()
            self.save()

    def open_journal(self) -> Journal:
        """Return a new journal, for one writer."""
        return Journal(self.state, self.head)

    def save(self) -> None:
        """Write all records, a line each, by name; the file appears whole or not at all."""
        head = json.dumps(self.head, indent=1).removesuffix("\n}")
        with atomic(self.path) as draft, draft.open("w", encoding="utf-8") as file:
            file.write(f'{head},\n "results": {{')
            for number, name in enumerate(sorted(self.results.texts)):
                comma = "," if number else ""
                file.write(f"{comma}\n  {json.dumps(name)}: {self.results.texts[name]}")
            failures = json.dumps(self.failures, indent=1, sort_keys=True)
            file.write(f'\n }},\n "failed": {failures}\n}}\n')
        while self.obsolete_files:
            self.obsolete_files.pop().unlink(missing_ok=True)
        _remove_empty_states(self.folder)


@contextmanager
def exclusive_run(folder: Path, shard: Shard = UNSHARDED) -> Iterator[None]:
    """Allow one run at a time in a folder, or several of different shards of the same number.

    Raises:
        InputError: a run, or workers that a killed one left, might do the same images.
    """
    state = folder / STATE / shard.label
    with exclusive(state):
        try:
            _check_other_runs(folder, shard)
            yield
        finally:
            if not journals(state):
                (state / LOCK).unlink(missing_ok=True)
            _remove_empty_states(folder)


def _check_other_runs(folder: Path, shard: Shard) -> None:
    other_states = [state for state in states(folder) if shard_count(state.name) != shard.count]
    for state in other_states:
        if is_locked(state / LOCK):
            raise InputError(
                f"another run ({state.name} of all pictures) is using {folder}; wait for "
                "it, or stop it"
            )
    # Workers outlive a run that was killed until they finish; other shards have other images.
    own_state = folder / STATE / shard.label
    paths = [path for state in (own_state, *other_states) for path in journals(state)]
    if not _wait_for(paths, PATIENCE):
        raise InputError(
            f"workers of an earlier run are still writing to {folder}; wait for them, or stop them"
        )


def _wait_for(journal_paths: Sequence[Path], seconds: float) -> bool:
    """Wait until the writers of these journals have ended; return False if it takes longer."""
    end = time.monotonic() + seconds
    while any(is_locked(path) for path in journal_paths):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def _remove_drafts(folder: Path, content: JournalContent) -> None:
    """Remove drafts of images that their writer was processing when it was killed."""
    for name in content.attempts.keys() - content.records.keys():
        path = folder / name
        for suffix in PARTS:
            with suppress(OSError):
                draft_path(path.with_name(path.name + suffix)).unlink()


def _remove_empty_states(folder: Path) -> None:
    """Remove the folders of journals that are empty."""
    with suppress(OSError):
        for state in (folder / STATE).iterdir():
            with suppress(OSError):
                state.rmdir()
        (folder / STATE).rmdir()
