"""Metrics: what the server counts, as Prometheus reads it."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector
from prometheus_fastapi_instrumentator.metrics import Info

METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS")
SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Metrics:
    """The counts of one server, in a registry of their own.

    Args:
        page: path of the page, whose routes are counted as one.
    """

    def __init__(self, page: str) -> None:
        self.page = page
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "incontext_requests", "Requests answered", ["method", "route", "status"],
            registry=registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "incontext_request_seconds", "From the request's head to the answer's end", ["route"],
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self._images = Counter(
            "incontext_pictures", "Pictures segmented, or not read", ["result"], registry=registry
        )
        self._rejections = Counter(
            "incontext_rejected", "Requests refused by a limit", ["reason"], registry=registry
        )

    def add_gauge(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """Add a gauge that shows what `read` returns."""
        Gauge(f"incontext_{name}", help_text, registry=self.registry).set_function(read)

    def count_rejection(self, reason: str) -> None:
        """Count a request that met a limit; "" is none."""
        if reason:
            self._rejections.labels(reason).inc()

    def count_image(self, result: str) -> None:
        """Count a segmented image: "done" or "failed"."""
        self._images.labels(result).inc()

    def count_request(self, info: Info) -> None:
        """Count and time a request, the refused ones too."""
        method, route = info.method, self._route(info.modified_handler)
        method = method if method in METHODS else "other"
        self._requests.labels(method, route, info.modified_status).inc()
        self._seconds.labels(route).observe(info.modified_duration)

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _route(self, handler: str) -> str:
        """Map to one of few names: each is kept for good, and paths are the clients' to choose."""
        if f"{handler}/".startswith(f"{self.page}/"):
            return self.page
        # "none" is a path without a route; one that is redirected to its route comes as it is.
        redirected = handler != "/" and handler.endswith("/")
        return "other" if handler == "none" or redirected else handler
