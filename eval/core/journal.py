"""Journal of an evaluation: one line an episode, a file a process, safe to kill."""

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from incontext.errors import InputError
from incontext.files import changed_settings


class EpisodeJournal:
    """Lines `{"key", "episode", "row"}` in FOLDER/NAME.journal/*.jsonl.

    The first line of a file, `{"about": run_settings}`, says what was evaluated.

    Args:
        run_settings: what identifies this evaluation; lines of other settings are refused.
        process: number of this process, which writes a file of its own.

    Raises:
        InputError: the folder holds another evaluation.
    """

    def __init__(
        self, folder: Path, name: str, run_settings: dict[str, Any], process: int = 0
    ) -> None:
        self.folder = folder / f"{name}.journal"
        self.run_settings = json.loads(json.dumps(run_settings))  # as they come back from a file
        self.process = process
        self.path: Path | None = None
        self.rows = self.read_rows()

    def read_rows(self) -> dict[tuple[str, int], Any]:
        """Read the rows of all processes, by key and episode."""
        rows = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            lines = list(_lines(path))
            if lines and lines[0].get("about") != self.run_settings:
                names = changed_settings(lines[0].get("about", {}), self.run_settings)
                raise InputError(
                    f"{self.folder} holds another evaluation (other {', '.join(names)}); pass "
                    "another --out"
                )
            for line in lines[1:]:
                rows[line["key"], line["episode"]] = line["row"]
        return rows

    def add(self, key: str, episode: int, row: Any) -> None:
        """Write one episode to disk at once."""
        if self.path is None:
            self.path = self._create_file()
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "episode": episode, "row": row}) + "\n")
        self.rows[key, episode] = row

    def _create_file(self) -> Path:
        """Create a new file: the last line of an earlier one may have been cut by a kill."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for number in count():
            path = self.folder / f"{self.process}-{number}.jsonl"
            try:
                with path.open("x", encoding="utf-8") as file:
                    file.write(json.dumps({"about": self.run_settings}) + "\n")
                return path
            except FileExistsError:
                continue
        raise AssertionError

    def rows_of(self, key: str) -> list[Any]:
        """Return the rows of one key in the order of episodes."""
        return [row for (k, _), row in sorted(self.rows.items()) if k == key]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the whole lines; the last one may have been cut by a kill."""
    for text in path.read_text(encoding="utf-8").split("\n"):
        try:
            yield json.loads(text)
        except ValueError:
            continue
