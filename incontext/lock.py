"""Lock: one run at a time in a folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from incontext.errors import InputError


@contextmanager
def alone_in(folder: str | Path | None) -> Iterator[None]:
    """One run at a time in a folder, where the system has file locks.

    Raises:
        InputError: another run is using it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        folder = None
    if folder is None:
        yield
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    with (Path(folder) / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"another run is using {folder}; wait for it, or stop it") from None
        yield
