"""One micro-batch: who is touched, their fresh scores, the overlay, then the table; by one head from begin to end."""

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, repeat
from threading import Event, Lock
from typing import Any, Literal
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame, Observation
from pyspark.sql import functions as F

from jobs.errors import Overtaken, RegistryUnavailable, StreamEnded
from jobs.registry import ModelVersion
from jobs.staging import DELIVERY
from jobs.stream.dimensions import Dimensions
from jobs.stream.sink import Origin, Sink
from jobs.stream.site import Site
from jobs.stream.touched import NEWEST, events_of, live_spine, short_histories, visible_once
from jobs.tables import VERSION
from serving.clock import instant
from serving.errors import StoreUnavailable
from serving.head import Head
from serving.stream import Freshness, StreamRecord
from serving.wire.replication import masters_of

LOG = logging.getLogger(__name__)
PAUSES = (1, 2, 5, 10)  # seconds
AT_ONCE = 50_000  # keys whose scores pass through the driver at a time


@dataclass(frozen=True)
class Part:
    """Some keys' events, each once, and the newest version of the events of each key: a table of key, version."""

    number: int
    events: DataFrame
    versions: pa.Table

    def known_at(self, rows: pa.Table) -> pa.Table:
        """Return rows (with key) with `events_version`: whoever reads the events at it sees those that were counted."""
        places = pc.index_in(rows["key"], value_set=self.versions["key"].combine_chunks())
        return rows.append_column("events_version", self.versions["version"].combine_chunks().take(places))


@dataclass(frozen=True)
class Seen:
    """What a micro-batch worked on: the live head, and which processes held its overlay."""

    head: Head
    masters: frozenset[bytes]

    def follows(self, before: "Seen | None") -> bool:
        """Return whether what was written for `before` is still in force, so that only what is new needs a score.

        It is not in another epoch, in a Redis that has restarted, or after a generation was brought back in its place.
        """
        if before is None or self.masters != before.masters or self.head.epoch != before.head.epoch:
            return False
        return self.head.token == before.head.token or self.head.as_of > before.head.as_of


class Batches:
    """Scores micro-batches, one after another."""

    def __init__(self, site: Site, stopping: Event) -> None:
        self.site, self.stopping = site, stopping
        self.seen: Seen | None = None
        self.number = -1  # of the last micro-batch
        self.version = -1  # of the events, up to which it has read
        self.waits_for = ""  # what a micro-batch waits for, in words
        self.freshness = Freshness()
        self.sink = Sink(site)
        self.key = site.pipeline.entity_key
        self.dimensions = Dimensions(site.lake, list(site.pipeline.dimensions), self.key)
        self.lock = Lock()

    def process(self, histories: DataFrame, number: int) -> None:
        """Give fresh scores to the keys of `histories` (key, history), or to all that wait for one.

        It may be called again for the same `number`: what was done is not done twice. While Redis or the registry are
        away it waits for them.

        Raises:
            StreamEnded: the stream is about to stop.
        """
        with self.lock:
            if self.stopping.is_set():
                raise StreamEnded(f"{self.site.pipeline.name}: the stream is about to stop")
            self._process(histories, number)

    def record(self, state: Literal["running", "stopped"], started_at: int) -> StreamRecord:
        """Return what there is to tell of the stream."""
        return StreamRecord(
            state=state,
            query_id=self.site.query_id,
            started_at=started_at,
            told_at=self.site.clock.microseconds(),
            batch=self.number,
            version=self.version,
            keys=self.sink.keys,
            quarantined=self.sink.quarantined,
            freshness=self.freshness,
        )

    def idle(self) -> None:
        """Between two micro-batches, give their scores to all that wait for one, if what was live has changed."""
        with self.lock:
            seen = self._look()
            if seen is not None and not seen.follows(self.seen):
                with suppress(Overtaken):  # the next look sees what it was
                    self._catch_up(seen)
                    self.seen = seen
            else:
                self.seen = seen or self.seen

    def _process(self, histories: DataFrame, number: int) -> None:
        events, newest = events_of(histories, self.key, self.site.stream.longest_history), F.max(NEWEST)
        if self.number < 0:  # the first may be about all keys that there are: those that wait are found in the table
            version = events.agg(newest).collect()[0][0]
            self._patiently(lambda: self._freshen(None, number))
        else:
            version = self._process_near(events, newest, number)
        self.version, self.number = max(self.version, -1 if version is None else version), number

    def _process_near(self, events: DataFrame, newest: Column, number: int) -> Any:
        """Score in one partition, in which nothing is shuffled: it is planned and run twice as fast."""
        told = Observation()
        near = events.observe(told, newest.alias("version")).drop(NEWEST).coalesce(1)
        # Computed once, for what computes them also keeps the query's state.
        known = visible_once(near, self.key, self.site.clock.now()).persist()
        try:
            parts = list(_parts(known, self.key))
            self._patiently(lambda: self._freshen(parts, number))
            return told.get["version"]
        finally:
            known.unpersist()

    def _patiently(self, work: Callable[[], None]) -> None:
        """Do what needs Redis and the registry, again while one of them is away."""
        for pause in chain(PAUSES, repeat(PAUSES[-1])):
            try:
                work()
            except Overtaken as fault:
                LOG.info("%s", fault)
            except (StoreUnavailable, RegistryUnavailable) as fault:
                LOG.warning("%s: trying again in %d s: %s", self.site.pipeline.name, pause, fault)
                self.waits_for = str(fault)
                if self.stopping.wait(pause):
                    raise
            else:
                self.waits_for = ""
                return

    def _freshen(self, touched: list[Part] | None, number: int) -> None:
        seen = self._look()
        if seen is None:
            return
        if touched is not None and seen.follows(self.seen):
            for part in touched:
                self._time(self._score(seen, part, f"{self.site.query_id}/{part.number}", number))
        else:
            self._catch_up(seen)
        self.seen = seen

    def _look(self) -> Seen | None:
        head = self.site.store.head(self.site.pipeline.name)
        if head is None or head.overlay is None:
            return None
        return Seen(head, frozenset(masters_of(self.site.store.connection)))

    def _time(self, scores: pa.Table) -> None:
        """Take the seconds from each key's newest event to now, when its score can be read."""
        as_ofs = pc.cast(scores["as_of"], pa.int64()).to_numpy()
        self.freshness = self.freshness.with_all(((self.site.clock.microseconds() - as_ofs) / 1e6).tolist())

    def _catch_up(self, seen: Seen) -> None:
        """Score all keys of which an event has arrived since the live generation's as_of, from the table."""
        now, after, before = self.site.clock.now(), instant(seen.head.as_of), self.sink.keys
        version = self.site.lake.appended(self.site.events)
        events = self.site.lake.read(self.site.events).where(F.col(VERSION) <= version)
        arrived = events.where((F.col("arrived_at") > F.lit(after)) & (F.col("arrived_at") <= F.lit(now)))
        touched = events.join(arrived.select(self.key).distinct(), self.key, "left_semi")
        short = short_histories(touched.drop(*DELIVERY), self.key, self.site.stream.longest_history)
        known = visible_once(short, self.key, now).persist()
        try:
            name = f"{self.site.query_id}/{uuid4().hex}"
            for part in _parts(known, self.key):
                self._score(seen, part, f"{name}/{part.number}", 0)
        finally:
            known.unpersist()
        LOG.info("%d keys have events since the generation as of %s", self.sink.keys - before, after)

    def _score(self, seen: Seen, part: Part, app_id: str, number: int) -> pa.Table:
        model = seen.head.model
        known, attributes = part.events.drop(VERSION), self.dimensions.now()
        spine = live_spine(known, self.key, instant(seen.head.as_of))
        found = self.site.recipes.of(model).scored(known, spine, attributes.of(spine, self.key)).each(part.known_at)
        self._refuse_other_epoch(seen)
        pinned = ModelVersion(model.name, model.version, model.digest, ())
        self.sink.write(seen.head, found, Origin(pinned, attributes.versions, self.site.query_id), (app_id, number))
        return found.scores

    def _refuse_other_epoch(self, seen: Seen) -> None:
        """Refuse to write entries of an epoch that ended meanwhile: theirs may be removed by now, and these never."""
        live = self._look()
        if live is None or live.head.epoch != seen.head.epoch:
            raise Overtaken(f"{self.site.pipeline.name}: epoch {seen.head.epoch} ended while its scores were made")


def _parts(known: DataFrame, key: str) -> Iterator[Part]:
    """Give the events of some `AT_ONCE` of the keys at a time."""
    own = _versions(known, key)
    few = own.limit(AT_ONCE + 1).toArrow()
    if len(few) <= AT_ONCE:
        yield from [Part(0, known, few)] if len(few) else []
        return
    parts = -(-own.count() // AT_ONCE)
    for number in range(parts):
        some = known.where(F.pmod(F.xxhash64(key), F.lit(parts)) == number)
        yield Part(number, some, _versions(some, key).toArrow())


def _versions(events: DataFrame, key: str) -> DataFrame:
    return events.groupBy(F.col(key).alias("key")).agg(F.max(VERSION).alias("version"))
