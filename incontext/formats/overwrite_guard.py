"""Ours: what an earlier export wrote may be written anew; what anybody else did is not touched."""

import re
from collections.abc import Iterable
from pathlib import Path

from incontext.errors import InputError

SIGN = "written by incontext export"  # at the start of files, where their format has a place
MARK = ".incontext-export"  # in folders: a line for each format that was written there
START = 65_536  # bytes of a file that its sign is looked for in


def check_file(path: Path, start: str) -> None:
    """Raise InputError where a file is there that does not begin as ours do.

    Args:
        start: a regular expression.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        begin = file.read(START).decode("utf-8", "replace")
    if not re.match(start, begin):
        raise InputError(f"{path} is there, not {SIGN}; choose another --out")


def check_folder(folder: Path, name: str, taken: Iterable[Path]) -> None:
    """Raise InputError where one of these is there, and no export in this format was before.

    Args:
        folder: that is to be written.
        name: of the format.
        taken: files and folders in it, whose contents would be replaced.
    """
    if name in _written(folder):
        return
    for path in taken:
        if path.exists() or path.is_symlink():
            raise InputError(
                f"{folder} holds {path.relative_to(folder)}, not {SIGN} --to {name}; choose "
                "another --out"
            )


def mark(folder: Path, name: str) -> None:
    """Note that the folder is written in this format; before the first file, since an export that
    was stopped may be done again."""
    names = _written(folder)
    if name not in names:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARK).write_text("".join(f"{n}\n" for n in [*names, name]), encoding="utf-8")


def _written(folder: Path) -> list[str]:
    path = folder / MARK
    return path.read_text(encoding="utf-8").split() if path.is_file() else []
