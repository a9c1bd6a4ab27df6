"""Jobs: one a visitor, one quick and one long one at a time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

from incontext.web.limits import QUEUE
from incontext.web.reporting import Stopped, going_on, refusal


class Full(gr.Error):
    """As many wait already as may."""


class Jobs:
    """One job a visitor, who can stop it; of all visitors one quick and one long one at once.

    Args:
        most: jobs, those that wait among them; None: `QUEUE`.
        at_once: quick ones that compute at the same time.
    """

    def __init__(self, most: int | None = None, at_once: int = 1) -> None:
        self._running: dict[str, threading.Event] = {}
        self._lock = threading.Lock()
        self._most = most
        self._slots = {"quick": threading.Semaphore(at_once), "long": threading.Semaphore(1)}
        self.waiting = self.computing = 0  # for a slot, in one

    @contextmanager
    def one(self, request: gr.Request | None, kind: str) -> Iterator[threading.Event]:
        """Hold the visitor's only place, and wait for a slot; yields what is set when the job
        should stop. `kind`: "quick" or "long".

        Raises: what `place` and `slot` do.
        """
        with self.place(_visitor(request)) as stop, self.slot(kind, stop):
            yield stop

    @contextmanager
    def place(self, visitor: str) -> Iterator[threading.Event]:
        """Hold a visitor's only place; yields what is set when the job should stop.

        Raises:
            gr.Error: another job of the same visitor is there.
            Full: too many visitors wait.
        """
        stop, most = threading.Event(), self._most or QUEUE
        with self._lock:
            if visitor in self._running:
                raise refusal("One job at a time: wait for yours to end, or stop it.")
            if len(self._running) >= most:
                text = f"{most} jobs are waiting already; try again in a minute."
                raise Full(text, print_exception=False)
            self._running[visitor] = stop
        try:
            yield stop
        finally:
            with self._lock:
                self._running.pop(visitor, None)

    @contextmanager
    def slot(self, kind: str, stop: threading.Event) -> Iterator[None]:
        """Wait for a slot, then compute in it.

        Raises:
            Stopped: before there was one.
        """
        self._count(waiting=1)
        try:
            while not self._slots[kind].acquire(timeout=0.5):
                if stop.is_set():
                    raise Stopped
        finally:
            self._count(waiting=-1)
        self._count(computing=1)
        try:
            going_on(stop)
            yield
        finally:
            self._count(computing=-1)
            self._slots[kind].release()

    def _count(self, waiting: int = 0, computing: int = 0) -> None:
        with self._lock:
            self.waiting += waiting
            self.computing += computing

    def stop(self, request: gr.Request | None = None) -> None:
        """End the visitor's job at the next step; what is finished stays."""
        with self._lock:
            running = self._running.get(_visitor(request))
        if running:
            running.set()

    def stop_all(self) -> None:
        """End the jobs of all visitors at their next step."""
        with self._lock:
            for running in self._running.values():
                running.set()


def _visitor(request: gr.Request | None) -> str:
    return str(getattr(request, "session_hash", None) or "")
