"""Gate: who comes in, with what key and how many at once."""

import asyncio
import base64
import hmac
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Event
from uuid import uuid4

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from incontext.web.api_errors import Refusal, answer_of
from incontext.web.jobs import Full
from incontext.web.server.request_body import Body
from incontext.web.server.service import Service

OPEN = ("/healthz",)  # to everybody
WATCHED = (*OPEN, "/readyz", "/metrics")  # answered while the server shuts down, too
WORK = "/v1/"  # what is posted there computes


@dataclass(frozen=True)
class Turn:
    """A request's place among the jobs. `stack` holds it and goes with the work."""

    stop: Event
    deadline: float  # in the loop's time
    stack: ExitStack


class Gate:
    """Refuses before anything is read: a wrong key, a full queue, a server that shuts down.

    The page (`demo`, where it is mounted) has limits of its own; it is asked for the key only.
    """

    def __init__(self, app: ASGIApp, service: Service, demo: str) -> None:
        self.app, self.service, self.demo = app, service, demo

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or a socket of the page."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._socket(scope, receive, send)
        else:
            await self._request(scope, receive, send)

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._check(scope)
        except Refusal:
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        await self.app(scope, receive, send)

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        service, limits = self.service, self.service.limits
        deadline = asyncio.get_running_loop().time() + limits.seconds
        body = Body(receive, limits.request_bytes, deadline)
        if scope["path"] == self.demo or scope["path"].startswith(f"{self.demo}/"):
            await self._page(scope, receive, send)
            return
        with service.counted(), ExitStack() as stack:
            try:
                self._check(scope)
                if scope["method"] == "POST" and scope["path"].startswith(WORK):
                    body.check(Headers(scope=scope).get("content-length"))
                    stop = stack.enter_context(service.jobs.place(uuid4().hex))
                    scope.setdefault("state", {})["turn"] = Turn(stop, deadline, stack)
            except Full as full:
                await self._refuse(Refusal(503, full.message, "queue"), scope, body, send)
            except Refusal as refusal:
                await self._refuse(refusal, scope, body, send)
            else:
                await self.app(scope, body.receive, body.answering(send))

    async def _page(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The page keeps streams open while it is looked at: they end with the server."""
        service, open_ = self.service, False

        async def sending(message: Message) -> None:
            nonlocal open_
            open_ = message["type"] == "http.response.start" or message.get("more_body", False)
            await send(message)

        try:
            self._check(scope)
            with service.streaming():
                await self.app(scope, receive, sending)
        except Refusal as refusal:
            service.meters.refused(refusal.reason)
            await answer_of(refusal)(scope, receive, send)
        if open_:  # cancelled
            await send({"type": "http.response.body", "body": b""})

    async def _refuse(self, refusal: Refusal, scope: Scope, body: Body, send: Send) -> None:
        self.service.meters.refused(refusal.reason)
        await answer_of(refusal)(scope, body.receive, body.answering(send))

    def _check(self, scope: Scope) -> None:
        """Raise Refusal where the key is wrong, or the server is not ready for this."""
        service, path = self.service, scope["path"]
        if path not in OPEN and service.key:
            given = _key_of(Headers(scope=scope))
            # Bytes: texts are compared in constant time only if they are ASCII.
            if not hmac.compare_digest(given.encode(), service.key.encode()):
                raise Refusal(
                    401, "a wrong API key, or none; send it as X-API-Key or as a bearer token",
                    "key", {"WWW-Authenticate": 'Basic realm="incontext: any name, the key"'},
                )  # fmt: skip
        if service.draining and path not in WATCHED:
            raise Refusal(503, "this server is shutting down", "shutdown")
        if path.startswith(WORK) and not service.ready:
            raise Refusal(503, "the model is not loaded yet", "loading")


def _key_of(headers: Headers) -> str:
    """The key as programs send it, or as browsers do: any user's password; "" for none."""
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
