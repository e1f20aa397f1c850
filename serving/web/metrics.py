"""What Prometheus scrapes: the journal's numbers and what is live, told anew at each scrape."""

from collections.abc import Iterator
from datetime import datetime
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from serving.clock import instant
from serving.heads import Live
from serving.reader import Reader
from serving.web.journal import SECONDS, Journal

BOUNDS = [*map(str, SECONDS), "+Inf"]
Families = Iterator[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]


class Metrics:
    """The metrics of one service process."""

    def __init__(self, reader: Reader, journal: Journal) -> None:
        self._reader, self._journal = reader, journal

    def scrape(self, live: Live | None, now: datetime) -> bytes:
        """Return all metrics as Prometheus text; `live` is what is live now, None where Redis does not answer."""
        self._journal.fold()
        registry = CollectorRegistry()
        registry.register(_Told([*self._requests(), *self._store(live), *self._generations(live, now)]))
        return generate_latest(registry)

    def _requests(self) -> Families:
        requests = CounterMetricFamily("scoreline_requests", "Requests answered.", labels=("method", "route", "status"))
        for (method, route, status), count in self._journal.requests.items():
            requests.add_metric((method, route, str(status)), count)
        yield requests
        seconds = HistogramMetricFamily("scoreline_request_seconds", "Seconds to an answer.", labels=("route",))
        for route, timings in self._journal.timings.items():
            buckets = list(zip(BOUNDS, map(float, accumulate(timings.counts)), strict=True))
            seconds.add_metric((route,), buckets, timings.total)
        yield seconds
        lookups = CounterMetricFamily(
            "scoreline_lookups", "Keys looked up, by where the answer came from.", labels=("pipeline", "source")
        )
        for labels, looked_up in self._journal.lookups.items():
            lookups.add_metric(labels, looked_up.keys)
        yield lookups
        yield _counter(
            "scoreline_log_pieces_dropped", "Pieces of the log that nobody took.", self._journal.writer.dropped
        )

    def _store(self, live: Live | None) -> Families:
        yield _gauge("scoreline_store_up", "1 where Redis answers, else 0.", int(live is not None))
        yield _counter("scoreline_store_faults", "Requests to Redis that failed.", self._reader.link.faults)
        unreadable = live.unreadable if live else 0
        yield _gauge(
            "scoreline_unreadable_heads",
            "Pipelines whose head record cannot be read, or is not within reach.",
            unreadable,
        )
        regressions = self._reader.heads.regressions
        yield _counter("scoreline_head_regressions", "Heads that were brought back to an earlier one.", regressions)

    def _generations(self, live: Live | None, now: datetime) -> Families:
        age = GaugeMetricFamily(
            "scoreline_generation_age_seconds", "Seconds since the as_of of the live generation.", labels=("pipeline",)
        )
        for head in live.heads if live else ():
            age.add_metric((head.pipeline,), (now - instant(head.as_of)).total_seconds())
        yield age


class _Told(Collector):
    def __init__(self, families: list[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]) -> None:
        self._families = families

    def collect(self) -> Families:
        yield from self._families


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, value=value)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)
