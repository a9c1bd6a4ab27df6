"""Ending: the process ends in time, whatever still computes in its threads."""

import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn


def leave(folder: Path) -> NoReturn:
    """End at once. The interpreter would wait for its threads, and one that computes ends when it
    has its result; files go, as they do at any other end."""
    shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


@contextmanager
def signals_leave(folder: Path) -> Iterator[None]:
    """Leave at a signal to end, wherever nothing else takes it."""
    if threading.current_thread() is not threading.main_thread():  # where none can be taken
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: leave(folder)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def leave_after(seconds: float, folder: Path) -> threading.Event:
    """Leave in so many seconds, unless what is answered is set by then."""
    ended = threading.Event()

    def wait() -> None:
        if not ended.wait(seconds):
            leave(folder)

    threading.Thread(target=wait, daemon=True).start()
    return ended
