"""What Prometheus scrapes, and the middleware that counts and times every request."""

from collections import Counter as Tallies
from collections.abc import Iterable
from datetime import datetime
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.answers import Score
from serving.clock import instant
from serving.errors import LookupRefused
from serving.reader import Live

METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


class Metrics:
    """The metrics of one service process; labels take only names of routes and of live pipelines."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "scoreline_requests", "Requests answered.", ("method", "route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "scoreline_request_seconds", "Seconds to an answer.", ("route",), buckets=SECONDS, registry=self._registry
        )
        self._lookups = Counter(
            "scoreline_lookups",
            "Keys looked up, by where the answer came from.",
            ("pipeline", "source"),
            registry=self._registry,
        )
        self._age = Gauge(
            "scoreline_generation_age_seconds",
            "Seconds since the as_of of the live generation.",
            ("pipeline",),
            registry=self._registry,
        )
        self._unreadable = Gauge(
            "scoreline_unreadable_heads", "Pipelines whose head record cannot be read.", registry=self._registry
        )
        self._store_up = Gauge("scoreline_store_up", "1 where Redis answers, else 0.", registry=self._registry)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count and time one request."""
        # A caller may invent methods; each would be a time series of its own.
        known = method if method in METHODS else "other"
        self._requests.labels(known, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def lookups(self, pipeline: str, answers: Iterable[Score | LookupRefused]) -> None:
        """Count the keys of one lookup."""
        sources = Tallies(answer.source if isinstance(answer, Score) else "none" for answer in answers)
        for source, count in sources.items():
            self._lookups.labels(pipeline, source).inc(count)

    def scrape(self, live: Live | None, now: datetime) -> bytes:
        """Return all metrics as Prometheus text; `live` is what is live now, None where Redis does not answer."""
        self._store_up.set(live is not None)
        self._unreadable.set(live.unreadable if live else 0)
        self._age.clear()
        for head in live.heads if live else ():
            self._age.labels(head.pipeline).set((now - instant(head.as_of)).total_seconds())
        return generate_latest(self._registry)


class Observed:
    """ASGI middleware: every request is counted and timed under its route's template."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and record the status that comes back."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started, status = perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self.metrics.request(scope["method"], route, status, perf_counter() - started)
