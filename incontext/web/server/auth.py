"""Auth: ASGI middleware for the API key, admission to the queue, and refusal during shutdown."""

import asyncio
import base64
import hmac
from contextlib import ExitStack
from uuid import uuid4

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from incontext.web.api_errors import ApiError, error_response
from incontext.web.jobs import QueueFull
from incontext.web.server.request_body import RequestBody
from incontext.web.server.service import PAGE, JobTicket, Service

PUBLIC = ("/healthz",)  # needs no key
PROBES = (*PUBLIC, "/readyz", "/metrics")  # answered while the server shuts down, too
API = "/v1/"  # what is posted there computes


class AdmissionMiddleware:
    """Refuses before anything is read: a wrong key, a full queue, a server that shuts down.

    Dependencies of FastAPI would come too late for this: they are resolved after the body, which
    may be hundreds of megabytes. The page has limits of its own; only its key is checked.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, or a socket of the page."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._handle_socket(scope, receive, send)
        elif f"{scope['path']}/".startswith(f"{PAGE}/"):
            await self._handle_page(scope, receive, send)
        else:
            await self._handle_request(scope, receive, send)

    async def _handle_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._check(scope)
        except ApiError:
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        await self.app(scope, receive, send)

    async def _handle_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        service, limits = self.service, self.service.limits
        deadline = asyncio.get_running_loop().time() + limits.seconds
        body = RequestBody(receive, limits.request_bytes, deadline)
        with service.request_in_flight(), ExitStack() as stack:
            try:
                self._check(scope)
                if scope["method"] == "POST" and scope["path"].startswith(API):
                    body.check_length(Headers(scope=scope).get("content-length"))
                    stop = stack.enter_context(service.jobs.place(uuid4().hex))
                    scope.setdefault("state", {})["ticket"] = JobTicket(stop, deadline, stack)
            except QueueFull as full:
                await self._refuse(ApiError(503, full.message, "queue"), scope, body, send)
            except ApiError as error:
                await self._refuse(error, scope, body, send)
            else:
                await self.app(scope, body.receive, body.drain_before_end(send))

    async def _handle_page(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle the page, which keeps streams open while it is looked at: they end with the
        server."""
        service, streaming = self.service, False

        async def watch_stream(message: Message) -> None:
            nonlocal streaming
            start = message["type"] == "http.response.start"
            streaming = start or message.get("more_body", False)
            await send(message)

        try:
            self._check(scope)
            with service.page_stream():
                await self.app(scope, receive, watch_stream)
        except ApiError as error:
            service.metrics.count_rejection(error.reason)
            await error_response(error)(scope, receive, send)
        if streaming:  # cancelled
            await send({"type": "http.response.body", "body": b""})

    async def _refuse(self, error: ApiError, scope: Scope, body: RequestBody, send: Send) -> None:
        self.service.metrics.count_rejection(error.reason)
        await error_response(error)(scope, body.receive, body.drain_before_end(send))

    def _check(self, scope: Scope) -> None:
        """Raise ApiError if the key is wrong, or the server is not ready for this."""
        service, path = self.service, scope["path"]
        if path not in PUBLIC and service.key:
            key = _read_key(Headers(scope=scope))
            # Bytes: texts are compared in constant time only if they are ASCII.
            if not hmac.compare_digest(key.encode(), service.key.encode()):
                raise ApiError(
                    401, "a wrong API key, or none; send it as X-API-Key or as a bearer token",
                    "key", {"WWW-Authenticate": 'Basic realm="incontext: any name, the key"'},
                )  # fmt: skip
        if service.draining and path not in PROBES:
            raise ApiError(503, "this server is shutting down", "shutdown")
        if path.startswith(API) and not service.ready:
            raise ApiError(503, "the model is not loaded yet", "loading")


def _read_key(headers: Headers) -> str:
    """Return the key as programs send it, or as browsers do: any user's password; "" for none."""
    if "x-api-key" in headers:
        return headers["x-api-key"]
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value).decode().partition(":")[2]
        except ValueError:  # no base64, no ASCII, or no UTF-8 inside
            return ""
    return ""
