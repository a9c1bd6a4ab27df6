"""Service: what all routes share: one model, one queue, the prompts held, and the limits."""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event
from typing import Any, TypeVar

from starlette.requests import Request

from incontext import Predictor
from incontext.web.api_errors import Refusal
from incontext.web.jobs import Jobs
from incontext.web.limits import PAINTINGS, PICTURES, PIXELS, QUEUE
from incontext.web.models import Models
from incontext.web.reporting import Stopped
from incontext.web.server.metrics import Meters
from incontext.web.server.prompt_store import Held

Made = TypeVar("Made")
DOWNLOADS = 4  # of prompts at once: each is a file on the disk until its client has read it


@dataclass(frozen=True)
class Limits:
    """What clients may ask for."""

    request_bytes: int = 200_000_000
    files: int = PICTURES  # of a request
    pixels: int = PIXELS  # of a picture
    example_pixels: int = 160_000_000  # of a prompt's examples together: they are read at once
    ids: int = 256  # of a prompt: a query is painted once for every four
    paintings: int = PAINTINGS  # of a picture: tiles, each once for every four ids
    queue: int = QUEUE  # requests and jobs of the page, those that wait among them
    at_once: int = 1  # of them that compute
    seconds: int = 300  # of a request, from its first byte
    prompts: int = 64  # held
    prompt_bytes: int = 1_000_000_000  # of them together


class Service:
    """The state of a server: `ready` once the model is loaded, until it begins to shut down."""

    def __init__(self, models: Models, limits: Limits, key: str | None = None) -> None:
        self.models, self.limits, self.key = models, limits, key
        self.jobs = Jobs(limits.queue, limits.at_once)
        self.held = Held(limits.prompts, limits.prompt_bytes)
        self.meters = Meters()
        # As many threads as there are places: who has a place waits in a thread of its own.
        self.threads = ThreadPoolExecutor(limits.queue, "job")
        self.in_flight = self.downloads = 0
        self._streams: set[asyncio.Task[Any]] = set()
        self.loaded: Predictor | None = None
        self.failure: BaseException | None = None
        self.draining = False
        for name, what, value in (
            ("queue_depth", "Jobs that wait for their turn", lambda: self.jobs.waiting),
            ("computing", "Jobs that compute", lambda: self.jobs.computing),
            ("in_flight", "Requests that are being answered", lambda: self.in_flight),
            ("prompts", "Prompts held", lambda: len(self.held)),
            ("prompt_bytes", "Bytes of the prompts held", lambda: self.held.nbytes),
        ):
            self.meters.watch(name, what, value)

    @property
    def ready(self) -> bool:
        """Whether work is taken."""
        return self.loaded is not None and not self.draining

    @property
    def predictor(self) -> Predictor:
        """The model; the gate lets nobody in before it is there."""
        assert self.loaded is not None
        return self.loaded

    def load(self) -> None:
        """Load the model; what goes wrong is kept in `failure`."""
        try:
            self.loaded = self.models.get()
        except BaseException as error:
            self.failure = error

    @contextmanager
    def counted(self) -> Iterator[None]:
        """A request is in flight; in the event loop only."""
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    @contextmanager
    def downloading(self) -> Iterator[None]:
        """A prompt is being downloaded; in the event loop only.

        Raises:
            Refusal: too many are.
        """
        if self.downloads >= DOWNLOADS:
            raise Refusal(503, f"{DOWNLOADS} prompts are being downloaded already", "downloads")
        self.downloads += 1
        try:
            yield
        finally:
            self.downloads -= 1

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """A request of the page, which `hang_up` ends; in the event loop only."""
        task = asyncio.current_task()
        assert task
        self._streams.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if task in self._streams:  # by somebody else
                raise
        finally:
            self._streams.discard(task)

    def hang_up(self) -> None:
        """End what the page keeps open."""
        for task in list(self._streams):
            self._streams.discard(task)
            task.cancel()

    async def in_turn(self, request: Request, work: Callable[[Event], Made]) -> Made:
        """Do work in a thread when its turn comes. `work(stop)` raises Stopped at its next step
        once `stop` is set, which is when the client left or its time is over; the turn is given
        back when it ended.

        Raises:
            Refusal: the time was over (504), the client gone (499).
        """
        turn, loop = request.state.turn, asyncio.get_running_loop()
        stack = turn.stack.pop_all()

        def job() -> Made:
            with stack, self.jobs.slot("quick", turn.stop):
                return work(turn.stop)

        future: Future[Made] = self.threads.submit(job)
        done = asyncio.wrap_future(future)
        gone = asyncio.ensure_future(request.receive())
        both: list[asyncio.Future[Any]] = [done, gone]
        try:
            left = turn.deadline - loop.time()
            await asyncio.wait(both, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if not done.done():
                raise self._late(gone.done())
            return await done
        except (Stopped, asyncio.CancelledError) as error:  # by somebody else: the server ends
            if isinstance(error, asyncio.CancelledError) and not self.draining:
                raise
            raise Refusal(503, "this server is shutting down", "shutdown") from None
        finally:
            if not done.done():
                turn.stop.set()
                done.add_done_callback(_forget)
            gone.cancel()

    def close(self, patience: float) -> bool:
        """End all jobs at their next step, the page's too, and wait for them a while; whether
        they ended: what still computes when the interpreter ends may bring it down."""
        self.jobs.stop_all()
        until = time.monotonic() + patience
        while self.jobs.computing and time.monotonic() < until:
            time.sleep(0.02)
        return not self.jobs.computing

    def _late(self, gone: bool) -> Refusal:
        if gone:
            return Refusal(499, "the client went away", "gone")
        text = f"not done within {self.limits.seconds} s; send fewer pictures, or larger tiles"
        return Refusal(504, text, "seconds")


def _forget(done: "asyncio.Future[Any]") -> None:
    """Nobody waits for it any more: what went wrong is no news."""
    if not done.cancelled():
        done.exception()
