"""Server: the routes and the page in one process."""

import errno
import ipaddress
import socket
import threading
import warnings
from collections.abc import Callable, Sequence

import torch
import uvicorn
from fastapi import FastAPI, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import APIKeyHeader
from prometheus_fastapi_instrumentator.middleware import PrometheusInstrumentatorMiddleware
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, RedirectResponse, Response

import incontext
from incontext import InputError, Predictor
from incontext.web.api_errors import ApiError, error_response
from incontext.web.limits import working_folder
from incontext.web.models import Models
from incontext.web.reporting import without_paths
from incontext.web.server.auth import AdmissionMiddleware
from incontext.web.server.routes import api, health
from incontext.web.server.service import PAGE, Limits, Service
from incontext.web.server.shutdown import DrainingServer

GRACE = 5  # seconds for what is still open when all requests are answered
# What /openapi.json says of the key; `AdmissionMiddleware` checks it.
KEY_SCHEME = APIKeyHeader(name="X-API-Key", auto_error=False)


def build_app(service: Service, cors: Sequence[str] = (), page: bool = True) -> FastAPI:
    """Assemble the routes, their middleware, and the page."""
    # No page of documentation: those that FastAPI has are fetched from elsewhere.
    app = FastAPI(
        title="incontext", version=incontext.__version__, docs_url=None, redoc_url=None,
        description="Segment pictures by example. Errors are told as {\"error\": sentence}.",
    )  # fmt: skip
    app.state.service = service
    app.include_router(health)
    app.include_router(api, dependencies=[Security(KEY_SCHEME)] if service.key else [])
    _add_error_handlers(app, service)
    app.add_middleware(AdmissionMiddleware, service=service)
    if cors:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(cors), allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "X-API-Key"],
        )  # fmt: skip
    # Added last, so that it surrounds the others and counts what they refuse.
    app.add_middleware(
        PrometheusInstrumentatorMiddleware, should_group_status_codes=False,
        instrumentations=[service.metrics.count_request],
    )  # fmt: skip
    if page:
        _mount_page(app, service)
    return app


def _mount_page(app: FastAPI, service: Service) -> None:
    import gradio as gr

    from incontext.web.page.app import build  # takes a second or two
    from incontext.web.page.appearance import appearance

    blocks = build(service.models, service.jobs)
    blocks.state_session_capacity = 1000

    @app.get("/", include_in_schema=False)
    async def redirect_to_page() -> Response:
        return RedirectResponse(f"{PAGE}/")

    gr.mount_gradio_app(app, blocks, PAGE, show_error=False, **appearance())


def _add_error_handlers(app: FastAPI, service: Service) -> None:
    """Report every error as {"error": one sentence}."""

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        if isinstance(error, ApiError):
            service.metrics.count_rejection(error.reason)
        elif error.status_code == 404:
            error.detail = f"no route {request.url.path[:200]}; /openapi.json lists them"
        return error_response(error)

    @app.exception_handler(InputError)
    async def input_error(request: Request, error: InputError) -> JSONResponse:
        return JSONResponse({"error": without_paths(str(error))}, 422)

    @app.exception_handler(RequestValidationError)
    async def validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        field = " ".join(str(part) for part in first["loc"][1:])
        return JSONResponse({"error": f"{field}: {first['msg']}"}, 422)

    @app.exception_handler(Exception)
    async def server_error(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": "something went wrong here; the server's log has it"}, 500)


def serve(
    checkpoint: str, load: Callable[[str], Predictor], host: str, port: int, *,
    limits: Limits, key: str | None = None, cors: Sequence[str] = (), demo: bool = True,
    threads: int | None = None,
) -> None:  # fmt: skip
    """Serve until the process is stopped.

    Args:
        checkpoint: its name.
        load: makes the predictor of that name.
        host: the address to listen at.
        port: 0 for any that is free.
        key: that clients must send; None: everybody may come in.
        cors: origins whose pages may use the routes.
        demo: whether the page is there too, under /demo.
        threads: CPU threads for each job; None: all.

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
    with open_listener(host, port) as listener, working_folder(limits.pixels) as folder:
        service = Service(Models([checkpoint], load), limits, key)
        config = uvicorn.Config(
            build_app(service, cors, demo), log_level="warning", access_log=False,
            timeout_graceful_shutdown=GRACE,
        )  # fmt: skip
        threading.Thread(target=service.load, daemon=True).start()
        address = f"[{host}]" if ":" in host else host
        print(f"http://{address}:{listener.getsockname()[1]} (Ctrl+C ends it)", flush=True)
        DrainingServer(config, service).run_until_closed([listener], folder)
        if service.failure:
            raise service.failure


def open_listener(host: str, port: int) -> socket.socket:
    """Open a socket that listens, before anything is loaded.

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
