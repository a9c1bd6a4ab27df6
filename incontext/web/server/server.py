"""Server: the routes and the page in one process, which ends when its work is done."""

import errno
import ipaddress
import socket
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from types import FrameType

import torch
import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, RedirectResponse, Response

import incontext
from incontext import InputError, Predictor
from incontext.web.api_errors import Refusal, answer_of
from incontext.web.limits import root, workplace
from incontext.web.models import Models
from incontext.web.reporting import without_paths
from incontext.web.server.auth import Gate
from incontext.web.server.metrics import Metered
from incontext.web.server.routes import api, health
from incontext.web.server.service import Limits, Service
from incontext.web.server.shutdown import leave, leave_after, signals_leave

DEMO = "/demo"
END = 5  # seconds for what is still open when all requests are answered
PATIENCE = 10  # seconds for jobs that were told to end, until their threads are given up


def application(service: Service, cors: Sequence[str] = (), demo: bool = True) -> FastAPI:
    """The routes behind their gate, and the page if so wanted."""
    # No page of documentation: those that FastAPI has are fetched from elsewhere.
    app = FastAPI(
        title="incontext", version=incontext.__version__, docs_url=None, redoc_url=None,
        description="Segment pictures by example. Errors are told as {\"error\": sentence}.",
    )  # fmt: skip
    app.include_router(health(service))
    app.include_router(api(service))
    _tell_errors(app, service)
    app.add_middleware(Gate, service=service, demo=DEMO)
    if cors:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(cors), allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "X-API-Key"],
        )  # fmt: skip
    app.add_middleware(Metered, meters=service.meters, demo=DEMO)
    if demo:
        _mount(app, service)
    return app


def _mount(app: FastAPI, service: Service) -> None:
    import gradio as gr

    from incontext.web.page import app as page  # a second or two, for nothing without the page

    look = page.look()
    blocks = page.build(service.models, service.jobs)
    blocks.state_session_capacity = 1000

    @app.get("/", include_in_schema=False)
    async def to_the_page() -> Response:
        return RedirectResponse(f"{DEMO}/")

    gr.mount_gradio_app(app, blocks, DEMO, show_error=False, **look)


def _tell_errors(app: FastAPI, service: Service) -> None:
    """Whatever goes wrong is {"error": one sentence}."""

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        if isinstance(error, Refusal):
            service.meters.refused(error.reason)
        elif error.status_code == 404:
            error.detail = f"no route {request.url.path[:200]}; /openapi.json lists them"
        return answer_of(error)

    @app.exception_handler(InputError)
    async def wrong(request: Request, error: InputError) -> JSONResponse:
        return JSONResponse({"error": without_paths(str(error))}, 422)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = " ".join(str(part) for part in first["loc"][1:])
        return JSONResponse({"error": f"{where}: {first['msg']}"}, 422)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": "something went wrong here; the server's log has it"}, 500)


class Server(uvicorn.Server):
    """Ends when asked to, once the requests that came before are answered."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service, self.until = service, 0.0
        self.ended: threading.Event | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal: no more is taken; the second: jobs end at their next step; the third:
        at once."""
        if self.should_exit:
            self.force_exit = True
        elif self.service.draining:
            self.service.jobs.stop_all()
            self.should_exit = True
        self.until = self.until or time.monotonic() + self.service.limits.seconds
        self.service.draining = True

    async def on_tick(self, counter: int) -> bool:
        """Whether it is time to end; called ten times a second."""
        ending = await super().on_tick(counter)
        service = self.service
        done = service.draining and (not service.in_flight or time.monotonic() > self.until)
        if ending := ending or done or service.failure is not None:
            service.hang_up()
        return ending

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close what is open, for a while. Then jobs have a while to end: the loop waits for those
        of the page, the interpreter for all."""
        await super().shutdown(sockets)
        self.service.jobs.stop_all()
        self.ended = leave_after(0 if self.force_exit else PATIENCE, root())


def serve(
    checkpoint: str, load: Callable[[str], Predictor], host: str, port: int, *,
    limits: Limits, key: str | None = None, cors: Sequence[str] = (), demo: bool = True,
    threads: int | None = None,
) -> None:  # fmt: skip
    """Serve until the process is stopped.

    Args:
        checkpoint: its name; `load` makes its predictor.
        host: the address to listen at.
        port: 0 for any that is free.
        key: that clients must send; None: everybody may come in.
        cors: origins whose pages may use the routes.
        demo: whether the page is there too, under /demo.
        threads: of the processor for each job; None: all.

    Raises:
        InputError: the address cannot be had; what `load` raises.
    """
    if threads:
        torch.set_num_threads(threads)
    if not key and not _is_loopback(host):
        warnings.warn(
            f"no API key: whoever reaches {host} can use this server; set INCONTEXT_API_KEY",
            stacklevel=2,
        )
    with listening(host, port) as listener, workplace(limits.pixels) as folder:
        service = Service(Models([checkpoint], load), limits, key)
        config = uvicorn.Config(
            application(service, cors, demo), log_level="warning", access_log=False,
            timeout_graceful_shutdown=END,
        )  # fmt: skip
        server = Server(config, service)
        threading.Thread(target=service.load, daemon=True).start()
        shown = f"[{host}]" if ":" in host else host
        print(f"http://{shown}:{listener.getsockname()[1]} (Ctrl+C ends it)", flush=True)
        with signals_leave(folder):
            server.run(sockets=[listener])
            if not service.close(PATIENCE):
                leave(folder)
        if server.ended:
            server.ended.set()
        if service.failure:
            raise service.failure


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens, before anything is loaded.

    Raises:
        InputError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"port {port} is in use; choose another --port") from None
        raise InputError(f"cannot listen at {host}:{port}: {error.strerror or error}") from None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
