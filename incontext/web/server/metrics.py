"""Meters: what the server counts, as Prometheus reads it."""

import re
import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS")
PATHS = ("/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/info", "/v1/prompts",
         "/v1/segment")  # fmt: skip
SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Meters:
    """The counts of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        ProcessCollector(registry=own)
        self._requests = Counter(
            "incontext_requests", "Requests answered", ["method", "route", "status"], registry=own
        )
        self._seconds = Histogram(
            "incontext_request_seconds", "From the request's head to the answer's end", ["route"],
            buckets=SECONDS, registry=own,
        )  # fmt: skip
        self._pictures = Counter(
            "incontext_pictures", "Pictures segmented, or not read", ["result"], registry=own
        )
        self._refused = Counter(
            "incontext_rejected", "Requests refused by a limit", ["reason"], registry=own
        )

    def watch(self, name: str, what: str, value: Callable[[], float]) -> None:
        """A gauge that shows a value as it is."""
        Gauge(f"incontext_{name}", what, registry=self.registry).set_function(value)

    def refused(self, reason: str) -> None:
        """A limit was met."""
        if reason:
            self._refused.labels(reason).inc()

    def picture(self, result: str) -> None:
        """One picture more: "done" or "failed"."""
        self._pictures.labels(result).inc()

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request more."""
        self._requests.labels(method if method in METHODS else "other", route, status).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All of it."""
        return generate_latest(self.registry)


class Metered:
    """Times and counts every request, the refused ones too."""

    def __init__(self, app: ASGIApp, meters: Meters, demo: str) -> None:
        self.app, self.meters, self.demo = app, meters, demo

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, begun = 500, time.perf_counter()

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, sending)
        finally:
            route, took = self._route(scope["path"]), time.perf_counter() - begun
            self.meters.request(scope["method"], route, status, took)

    def _route(self, path: str) -> str:
        """One of few names: paths are the clients' to choose, and each name is kept for good."""
        if path in PATHS:
            return path
        if path == self.demo or path.startswith(f"{self.demo}/"):
            return self.demo
        found = re.fullmatch(r"/v1/prompts/[^/]+(/file)?", path)
        return f"/v1/prompts/{{id}}{found[1] or ''}" if found else "other"
