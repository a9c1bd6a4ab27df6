"""Lock: one run at a time in a folder; files that tell whether their writer lives."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from incontext.errors import InputError

LOCK = ".lock"
TRIES = 1000  # at a folder that others remove where it is empty: no error that stays is hidden


def hold(file: IO[Any]) -> bool:
    """Lock an open file for as long as it is open; False where another process holds it.

    Where the system or the file system has no locks it is as if nobody held any.
    """
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # Windows; some network file systems
        pass
    return True


def held(path: Path) -> bool:
    """Whether a process holds this file."""
    try:
        with path.open("r+b") as file:  # network file systems lock only what may be written
            return not hold(file)
    except OSError:
        return False


@contextmanager
def alone_in(folder: str | Path | None) -> Iterator[None]:
    """One run at a time in a folder, where the system has file locks.

    Raises:
        InputError: another run is using it.
    """
    if folder is None:
        yield
        return
    with _locked(Path(folder)):
        yield


def _locked(folder: Path) -> IO[str]:
    tries = 0
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = (folder / LOCK).open("w")
        except (FileNotFoundError, FileExistsError):  # another run removed a folder just now
            tries += 1
            if tries == TRIES:
                raise
            continue
        if not hold(file):
            file.close()
            raise InputError(f"another run is using {folder}; wait for it, or stop it")
        if os.name != "posix" or os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # removed by the run before, between our opening and its end
