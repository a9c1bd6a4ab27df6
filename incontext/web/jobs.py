"""Jobs: one per visitor, and in each lane, quick or long, few at a time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

from incontext.web.limits import MAX_JOBS
from incontext.web.reporting import raise_if_stopped, user_error


class QueueFull(gr.Error):
    """The error of a visitor who finds the queue full."""


class Jobs:
    """The jobs of all visitors. Each may have one and can stop it.

    Args:
        capacity: jobs at once, those that wait among them; None: `MAX_JOBS`.
        at_once: quick jobs that compute at the same time; of the long ones one does.
    """

    def __init__(self, capacity: int | None = None, at_once: int = 1) -> None:
        self._stops: dict[str, threading.Event] = {}  # by visitor
        self._lock = threading.Lock()
        self._capacity = capacity
        self._lanes = {"quick": threading.Semaphore(at_once), "long": threading.Semaphore(1)}
        self.waiting = self.computing = 0

    @contextmanager
    def run(self, request: gr.Request | None, lane: str) -> Iterator[threading.Event]:
        """Reserve the visitor's place and wait for a slot in a lane, "quick" or "long".

        Yields:
            The event that is set when the job should stop.

        Raises:
            gr.Error, QueueFull, JobStopped: see `place` and `slot`.
        """
        with self.place(_visitor(request)) as stop, self.slot(lane, stop):
            yield stop

    @contextmanager
    def place(self, visitor: str) -> Iterator[threading.Event]:
        """Reserve a visitor's only place in the queue; yields the event that stops the job.

        Raises:
            gr.Error: the visitor has another job.
            QueueFull: too many visitors wait.
        """
        stop, capacity = threading.Event(), self._capacity or MAX_JOBS
        with self._lock:
            if visitor in self._stops:
                raise user_error("One job at a time: wait for yours to end, or stop it.")
            if len(self._stops) >= capacity:
                text = f"{capacity} jobs are waiting already; try again in a minute."
                raise QueueFull(text, print_exception=False)
            self._stops[visitor] = stop
        try:
            yield stop
        finally:
            with self._lock:
                self._stops.pop(visitor, None)

    @contextmanager
    def slot(self, lane: str, stop: threading.Event) -> Iterator[None]:
        """Wait for a slot in a lane and hold it.

        Raises:
            JobStopped: `stop` was set before a slot was free.
        """
        self._count(waiting=1)
        try:
            while not self._lanes[lane].acquire(timeout=0.5):
                raise_if_stopped(stop)
        finally:
            self._count(waiting=-1)
        self._count(computing=1)
        try:
            raise_if_stopped(stop)
            yield
        finally:
            self._count(computing=-1)
            self._lanes[lane].release()

    def _count(self, waiting: int = 0, computing: int = 0) -> None:
        with self._lock:
            self.waiting += waiting
            self.computing += computing

    def stop(self, request: gr.Request | None = None) -> None:
        """End the visitor's job at its next step; what is finished stays."""
        with self._lock:
            stop = self._stops.get(_visitor(request))
        if stop:
            stop.set()

    def stop_all(self) -> None:
        """End the jobs of all visitors at their next step."""
        with self._lock:
            for stop in self._stops.values():
                stop.set()


def _visitor(request: gr.Request | None) -> str:
    return str(getattr(request, "session_hash", None) or "")
