"""Service: what all routes share: one model, one queue, the prompts held, and the limits."""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from threading import Event
from typing import Any, TypeVar

from starlette.requests import Request

from incontext import Predictor
from incontext.web.api_errors import ApiError
from incontext.web.jobs import Jobs
from incontext.web.limits import MAX_IMAGES, MAX_JOBS, MAX_PAINTINGS, MAX_PIXELS
from incontext.web.models import Models
from incontext.web.reporting import JobStopped
from incontext.web.server.metrics import Metrics
from incontext.web.server.prompt_store import PromptStore

Result = TypeVar("Result")
PAGE = "/demo"
MAX_DOWNLOADS = 4  # of prompts at once: each is a file on the disk until its client has read it


@dataclass(frozen=True)
class Limits:
    """What clients may ask for."""

    request_bytes: int = 200_000_000
    files: int = MAX_IMAGES  # of a request
    pixels: int = MAX_PIXELS  # of an image
    example_pixels: int = 160_000_000  # of a prompt's examples together: they are read at once
    ids: int = 256  # of a prompt: a query is painted once for every four
    paintings: int = MAX_PAINTINGS  # of an image: tiles, each once for every four ids
    queue: int = MAX_JOBS  # requests and jobs of the page, those that wait among them
    at_once: int = 1  # of them that compute
    seconds: int = 300  # of a request, from its first byte
    prompts: int = 64  # held
    prompt_bytes: int = 1_000_000_000  # of them together


@dataclass(frozen=True)
class JobTicket:
    """A request's place among the jobs. `stack` holds it and goes with the work."""

    stop: Event
    deadline: float  # in the loop's time
    stack: ExitStack


class Service:
    """The state of a server: `ready` once the model is loaded, until it begins to shut down."""

    def __init__(self, models: Models, limits: Limits, key: str | None = None) -> None:
        self.models, self.limits, self.key = models, limits, key
        self.jobs = Jobs(limits.queue, limits.at_once)
        self.prompts = PromptStore(limits.prompts, limits.prompt_bytes)
        # As many threads as there are places: who has a place waits in a thread of its own.
        self.threads = ThreadPoolExecutor(limits.queue, "job")
        self.in_flight = self.downloads = 0
        self.failure: BaseException | None = None
        self.draining = False
        self._predictor: Predictor | None = None
        self._page_streams: set[asyncio.Task[Any]] = set()
        self.metrics = Metrics(PAGE)
        for name, help_text, read in (
            ("queue_depth", "Jobs that wait for their turn", lambda: self.jobs.waiting),
            ("computing", "Jobs that compute", lambda: self.jobs.computing),
            ("in_flight", "Requests that are being answered", lambda: self.in_flight),
            ("prompts", "Prompts held", lambda: len(self.prompts)),
            ("prompt_bytes", "Bytes of the prompts held", lambda: self.prompts.nbytes),
        ):
            self.metrics.add_gauge(name, help_text, read)

    @property
    def ready(self) -> bool:
        """True while work is accepted."""
        return self._predictor is not None and not self.draining

    @property
    def predictor(self) -> Predictor:
        """The model; requests that need it are admitted only once it is loaded."""
        assert self._predictor is not None
        return self._predictor

    def load(self) -> None:
        """Load the model; an error is kept in `failure`."""
        try:
            self._predictor = self.models.get()
        except BaseException as error:
            self.failure = error

    @contextmanager
    def request_in_flight(self) -> Iterator[None]:
        """Count a request while it is answered; in the event loop only."""
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    @contextmanager
    def download_slot(self) -> Iterator[None]:
        """Hold one of the slots for downloads of prompts; in the event loop only.

        Raises:
            ApiError: all are taken.
        """
        if self.downloads >= MAX_DOWNLOADS:
            text = f"{MAX_DOWNLOADS} prompts are being downloaded already"
            raise ApiError(503, text, "downloads")
        self.downloads += 1
        try:
            yield
        finally:
            self.downloads -= 1

    @contextmanager
    def page_stream(self) -> Iterator[None]:
        """Let `close_streams` end a request of the page; in the event loop only."""
        task = asyncio.current_task()
        assert task
        self._page_streams.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if task in self._page_streams:  # cancelled by somebody else
                raise
        finally:
            self._page_streams.discard(task)

    def close_streams(self) -> None:
        """End what the page keeps open."""
        for task in list(self._page_streams):
            self._page_streams.discard(task)
            task.cancel()

    async def run_job(self, request: Request, work: Callable[[Event], Result]) -> Result:
        """Run `work(stop)` in a thread when its turn comes, and return its result.

        `work` raises JobStopped at its next step once `stop` is set: when the client has left or
        the time is over. The place in the queue is given back when the work has ended.

        Raises:
            ApiError: the time is over (504), the client has left (499), or the server ends (503).
        """
        ticket, loop = request.state.ticket, asyncio.get_running_loop()
        place = ticket.stack.pop_all()

        def compute() -> Result:
            with place, self.jobs.slot("quick", ticket.stop):
                return work(ticket.stop)

        future: Future[Result] = self.threads.submit(compute)
        result = asyncio.wrap_future(future)
        disconnect = asyncio.ensure_future(request.receive())
        events: list[asyncio.Future[Any]] = [result, disconnect]
        try:
            remaining = ticket.deadline - loop.time()
            await asyncio.wait(events, timeout=remaining, return_when=asyncio.FIRST_COMPLETED)
            if not result.done():
                raise self._unfinished(disconnect.done())
            return await result
        except (JobStopped, asyncio.CancelledError) as error:  # stopped by somebody else
            if isinstance(error, asyncio.CancelledError) and not self.draining:
                raise
            raise ApiError(503, "this server is shutting down", "shutdown") from None
        finally:
            if not result.done():
                ticket.stop.set()
                result.add_done_callback(_discard_error)
            disconnect.cancel()

    def close(self, patience: float) -> bool:
        """End all jobs at their next step, the page's too, and wait for them.

        Args:
            patience: seconds.

        Returns:
            True if all ended. What still computes when the interpreter ends may bring it down.
        """
        self.jobs.stop_all()
        deadline = time.monotonic() + patience
        while self.jobs.computing and time.monotonic() < deadline:
            time.sleep(0.02)
        return not self.jobs.computing

    def _unfinished(self, disconnected: bool) -> ApiError:
        if disconnected:
            return ApiError(499, "the client went away", "gone")
        text = f"not done within {self.limits.seconds} s; send fewer pictures, or larger tiles"
        return ApiError(504, text, "seconds")


def _discard_error(result: "asyncio.Future[Any]") -> None:
    """Retrieve the error of a job that nobody waits for, so that asyncio does not log it."""
    if not result.cancelled():
        result.exception()
