"""Jobs: one a visitor, one quick and one long one at a time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

from demos.limits import QUEUE
from demos.telling import Stopped, refusal


class Jobs:
    """One job a visitor, who can stop it; of all visitors one quick and one long one at once."""

    def __init__(self) -> None:
        self._running: dict[str, threading.Event] = {}
        self._lock = threading.Lock()
        self._slots = {"quick": threading.Semaphore(1), "long": threading.Semaphore(1)}

    @contextmanager
    def one(self, request: gr.Request | None, kind: str) -> Iterator[threading.Event]:
        """Hold the visitor's only place, and wait for a slot; yields what is set when the job
        should stop. `kind`: "quick" or "long".

        Raises:
            gr.Error: another job of the same visitor is there, or too many visitors wait.
            Stopped: while waiting.
        """
        visitor, stop = _visitor(request), threading.Event()
        with self._lock:
            if visitor in self._running:
                raise refusal("One job at a time: wait for yours to end, or stop it.")
            if len(self._running) >= QUEUE:
                raise refusal(f"{QUEUE} jobs are waiting already; try again in a minute.")
            self._running[visitor] = stop
        try:
            while not self._slots[kind].acquire(timeout=0.5):
                if stop.is_set():
                    raise Stopped
            try:
                yield stop
            finally:
                self._slots[kind].release()
        finally:
            with self._lock:
                self._running.pop(visitor, None)

    def stop(self, request: gr.Request | None = None) -> None:
        """End the visitor's job at the next step; what is finished stays."""
        with self._lock:
            running = self._running.get(_visitor(request))
        if running:
            running.set()


def _visitor(request: gr.Request | None) -> str:
    return str(getattr(request, "session_hash", None) or "")
