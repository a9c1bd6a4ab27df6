"""Shutdown: the process ends in time, whatever still computes in its threads."""

import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import uvicorn

from incontext.web.limits import root
from incontext.web.server.service import Service

PATIENCE = 10  # seconds for jobs that were told to end, until their threads are given up


class DrainingServer(uvicorn.Server):
    """Ends when asked to, once the requests that came before are answered.

    uvicorn by itself closes its port at the first signal. This one keeps it open and answers 503
    with Retry-After, so that a balancer sees the server draining instead of refused connections.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service, self.deadline = service, 0.0
        self.watchdog: threading.Timer | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain at the first signal, end the jobs at their next step at the second, and end at
        once at the third."""
        if self.should_exit:
            self.force_exit = True
        elif self.service.draining:
            self.service.jobs.stop_all()
            self.should_exit = True
        self.deadline = self.deadline or time.monotonic() + self.service.limits.seconds
        self.service.draining = True

    async def on_tick(self, counter: int) -> bool:
        """Return True when it is time to end; called ten times a second."""
        ending, service = await super().on_tick(counter), self.service
        if service.draining and (not service.in_flight or time.monotonic() > self.deadline):
            ending = True
        if ending := ending or service.failure is not None:
            service.close_streams()
        return ending

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close what is open, end the jobs, and set a watchdog: the event loop waits for threads
        of the page, the interpreter for all."""
        await super().shutdown(sockets)
        self.service.jobs.stop_all()
        patience = 0 if self.force_exit else PATIENCE
        self.watchdog = threading.Timer(patience, force_exit, [root()])
        self.watchdog.daemon = True
        self.watchdog.start()

    def run_until_closed(self, sockets: list[socket.socket], folder: Path) -> None:
        """Serve, and return when all jobs have ended; if they do not in time, end the process.

        Args:
            folder: removed at a forced end.
        """
        with exit_on_signals(folder):
            self.run(sockets=sockets)
            if not self.service.close(PATIENCE):
                force_exit(folder)
        if self.watchdog:
            self.watchdog.cancel()


def force_exit(folder: Path) -> NoReturn:
    """Remove the folder and end the process at once. The interpreter would wait for its threads,
    and one that computes ends only when it has its result."""
    shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


@contextmanager
def exit_on_signals(folder: Path) -> Iterator[None]:
    """Force the exit at a signal to end, wherever nothing else handles it."""
    if threading.current_thread() is not threading.main_thread():  # signals cannot be handled
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.signal(number, lambda *_: force_exit(folder)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)
