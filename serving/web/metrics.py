"""What Prometheus scrapes: the journal's numbers and what is live, told anew at each scrape."""

from collections.abc import Iterator
from datetime import datetime
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from serving.clock import instant, microseconds
from serving.heads import Live
from serving.reader import Reader
from serving.stream import BOUNDS_S
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
        registry.register(
            _Told([*self._requests(), *self._store(live), *self._generations(live, now), *self._streams(live, now)])
        )
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

    def _streams(self, live: Live | None, now: datetime) -> Families:
        """Give how each stream is, by its own word, which stays where it was once the stream is dead."""
        label = ("pipeline",)
        up = GaugeMetricFamily("scoreline_stream_up", "1 where the pipeline's stream runs, else 0.", labels=label)
        heard = GaugeMetricFamily("scoreline_stream_silence_seconds", "Seconds since its last word.", labels=label)
        behind = GaugeMetricFamily("scoreline_stream_lag_appends", "Appends of events not read yet.", labels=label)
        lag = GaugeMetricFamily("scoreline_stream_lag_seconds", "Seconds for which the oldest waits.", labels=label)
        progress = GaugeMetricFamily(
            "scoreline_stream_progress_age_seconds", "Seconds since it got on, or had read all.", labels=label
        )
        keys = CounterMetricFamily("scoreline_stream_scores", "Fresh scores since it started.", labels=label)
        bad = CounterMetricFamily("scoreline_stream_quarantined", "Rows of features that broke a rule.", labels=label)
        into = CounterMetricFamily("scoreline_stream_loaded", "Messages of a topic that became events.", labels=label)
        out = CounterMetricFamily("scoreline_stream_rejected", "Messages that did not: see quarantine.", labels=label)
        fresh = HistogramMetricFamily(
            "scoreline_stream_freshness_seconds", "Seconds from an event's arrival to its score.", labels=label
        )
        at = microseconds(now)
        for name, record in live.streams.items() if live else ():
            up.add_metric((name,), int(record.is_alive(at)))
            heard.add_metric((name,), (at - record.told_at) / 1e6)
            behind.add_metric((name,), record.behind)
            lag.add_metric((name,), record.lag_seconds(at))
            progress.add_metric((name,), (at - record.progressed_at) / 1e6)
            keys.add_metric((name,), record.keys)
            bad.add_metric((name,), record.quarantined)
            into.add_metric((name,), record.loaded)
            out.add_metric((name,), record.rejected)
            buckets = zip([*map(str, BOUNDS_S), "+Inf"], map(float, accumulate(record.freshness.counts)), strict=True)
            fresh.add_metric((name,), list(buckets), record.freshness.seconds)
        yield from (up, heard, behind, lag, progress, keys, bad, into, out, fresh)


class _Told(Collector):
    def __init__(self, families: list[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]) -> None:
        self._families = families

    def collect(self) -> Families:
        yield from self._families


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, value=value)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)
