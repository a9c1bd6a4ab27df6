"""What an evaluation did already: one line an episode, a file a process, safe to kill."""

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from incontext.errors import InputError


class Journal:
    """Lines `{"key", "episode", "row"}` in FOLDER/NAME.journal/*.jsonl; the first line of a file
    says what was evaluated.

    Args:
        about: what tells this evaluation from others; lines of others are refused.
        process: of several, which writes a file of its own.

    Raises:
        InputError: the folder holds another evaluation.
    """

    def __init__(self, folder: Path, name: str, about: dict[str, Any], process: int = 0) -> None:
        self.folder = folder / f"{name}.journal"
        self.about = json.loads(json.dumps(about))
        self.process = process
        self.path: Path | None = None
        self.rows = self.read()

    def read(self) -> dict[tuple[str, int], Any]:
        """All rows there are, by key and episode."""
        found = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            lines = list(_lines(path))
            if lines and lines[0].get("about") != self.about:
                before = lines[0].get("about", {})
                names = sorted(
                    name for name in before.keys() | self.about.keys()
                    if before.get(name) != self.about.get(name)
                )  # fmt: skip
                raise InputError(
                    f"{self.folder} holds another evaluation (other {', '.join(names)}); pass "
                    "another --out"
                )
            for line in lines[1:]:
                found[line["key"], line["episode"]] = line["row"]
        return found

    def add(self, key: str, episode: int, row: Any) -> None:
        """Note one episode, on disk at once."""
        if self.path is None:
            self.path = self._fresh()
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "episode": episode, "row": row}) + "\n")
        self.rows[key, episode] = row

    def _fresh(self) -> Path:
        """A file of its own: the last line of an earlier one may have been cut."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for number in count():
            path = self.folder / f"{self.process}-{number}.jsonl"
            try:
                with path.open("x", encoding="utf-8") as file:
                    file.write(json.dumps({"about": self.about}) + "\n")
                return path
            except FileExistsError:
                continue
        raise AssertionError

    def of(self, key: str) -> list[Any]:
        """Rows of one key in the order of episodes."""
        return [row for (k, _), row in sorted(self.rows.items()) if k == key]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Whole lines; the last one may have been cut by a kill."""
    for text in path.read_text(encoding="utf-8").split("\n"):
        try:
            yield json.loads(text)
        except ValueError:
            continue
