"""One micro-batch after another: each by one head from begin to end, and patient with what is away."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, repeat
from threading import Event, Lock
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, Observation
from pyspark.sql import functions as F

from jobs.errors import Overtaken, RegistryUnavailable, StreamEnded
from jobs.features import counted_once
from jobs.stream.part import Part
from jobs.stream.scorer import Scorer
from jobs.stream.site import Site
from jobs.stream.touched import NEWEST, events_of, whole_but_at_most
from serving.clock import instant
from serving.errors import HeadUnreadable, StoreRefused, StoreUnavailable
from serving.head import Head
from serving.stream import StreamRecord
from serving.wire.replication import masters_of

LOG = logging.getLogger(__name__)
PAUSES = (1, 2, 5, 10)  # seconds
AWAY = (StoreUnavailable, StoreRefused, HeadUnreadable, RegistryUnavailable)
# Between two looks at events that have come of age, and the share of the time that these may take.
REST_SECONDS, REST_TIMES = 10.0, 10
# Of the histories that are held here for a micro-batch: more are found in the table. The bytes go with a task, which
# Spark lets have 128 MiB, as often as features.sql names the events.
MOST_EVENTS, MOST_BYTES = 1_000_000, 48 * 2**20
FIRST = "a publication: scores are fresher than a generation, and none is live"
ANOTHER = "another publication: the live generation was published before its pipeline declared a stream"


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
        self.scorer = Scorer(site, stopping)
        self.seen: Seen | None = None
        self.number = -1  # of the last micro-batch
        self.version = -1  # of the events, up to which it has read
        self.due: int | None = None  # when (microseconds) an event arrives that claims to arrive later than now
        self.rested = time.monotonic()  # when there is time again for those
        self.waits_for = ""  # what a micro-batch waits for, in words
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
            keys=self.scorer.sink.keys,
            quarantined=self.scorer.sink.quarantined,
            freshness=self.scorer.freshness,
        )

    def idle(self) -> None:
        """Between two micro-batches, give their scores to all that wait for one, if what was live has changed.

        And to those of whom an event has come of age. It does nothing while a micro-batch is at work.

        Raises:
            StoreUnavailable, StoreRefused, HeadUnreadable, RegistryUnavailable: it is tried again, some seconds later.
        """
        if not self.lock.acquire(blocking=False):
            return
        try:
            if not self.waits_for or time.monotonic() >= self.rested:
                self._look_after()
        except AWAY as fault:
            self.waits_for, self.rested = str(fault), time.monotonic() + REST_SECONDS
            raise
        finally:
            self.lock.release()

    def _look_after(self) -> None:
        seen = self._look()
        if seen is None:
            return
        with suppress(Overtaken):  # the next look sees by what
            if not seen.follows(self.seen):
                self._catch_up(seen, seen.head.as_of)
            elif self.due is not None and self.due <= self.site.clock.microseconds() and time.monotonic() > self.rested:
                self._catch_up(seen, max(self.due - 1, seen.head.as_of))
            self.seen = seen

    def _process(self, histories: DataFrame, number: int) -> None:
        events = events_of(histories, self.site.pipeline.entity_key, self.site.stream.longest_history)
        if self.number < 0:  # the first may be about all keys that there are: those that wait are found in the table
            version = events.agg(F.max(NEWEST)).collect()[0][0]
            self._patiently(lambda: self._freshen(None, number))
        else:
            version = self._process_near(events, number)
        self.version, self.number = max(self.version, -1 if version is None else version), number

    def _process_near(self, events: DataFrame, number: int) -> Any:
        """Score in one partition, in which nothing is shuffled: it is planned and run twice as fast."""
        told = Observation()
        watched = events.observe(told, F.max(NEWEST).alias("version")).drop(NEWEST).coalesce(1)
        part = self._near(counted_once(watched, self.site.pipeline.entity_key))
        self._patiently(lambda: self._freshen(part, number))
        return told.get["version"]

    def _near(self, once: DataFrame) -> Part | None:
        """Return a micro-batch's events that have arrived by now, held here; None where they are too many for that.

        Others wait until they come of age. What is now stands in no plan: with another instant in it, Spark would write
        and compile other Java for each micro-batch, and Java would never get to know it.
        """
        found = whole_but_at_most(MOST_EVENTS + 1, once).toArrow()
        if len(found) > MOST_EVENTS or found.nbytes > MOST_BYTES:
            return None
        arrived, now = found["arrived_at"], pa.scalar(self.site.clock.now(), found["arrived_at"].type)
        later = found.filter(pc.greater(arrived, now))["arrived_at"]
        self._await(pc.min(pc.cast(later, pa.int64())).as_py())
        return self.scorer.near(found.filter(pc.less_equal(arrived, now)), once)

    def _await(self, due: int | None) -> None:
        self.due = min((each for each in (self.due, due) if each is not None), default=None)

    def _patiently(self, work: Callable[[], None]) -> None:
        """Do what needs Redis and the registry, again while one of them is away."""
        for pause in chain(PAUSES, repeat(PAUSES[-1])):
            try:
                work()
            except Overtaken as fault:
                LOG.info("%s", fault)
            except AWAY as fault:
                LOG.warning("%s: trying again in %d s: %s", self.site.pipeline.name, pause, fault)
                self.waits_for = str(fault)
                if self.stopping.wait(pause):
                    raise
            else:
                return

    def _freshen(self, part: Part | None, number: int) -> None:
        seen = self._look()
        if seen is None:
            return
        if part is not None and seen.follows(self.seen):
            self.scorer.score(seen.head, part, number, self.version)
        else:
            self._catch_up(seen, seen.head.as_of)
        self.seen = seen

    def _look(self) -> Seen | None:
        """Return what is live; None where it has no overlay."""
        head = self.site.store.head(self.site.pipeline.name)
        if head is None or head.overlay is None:
            self.waits_for = FIRST if head is None else ANOTHER
            return None
        self.waits_for = ""
        return Seen(head, frozenset(masters_of(self.site.store.connection)))

    def _catch_up(self, seen: Seen, after: int) -> None:
        began = time.monotonic()
        self.due = self.scorer.catch_up(seen.head, instant(after), self.version)
        ended = time.monotonic()
        self.rested = ended + max(REST_SECONDS, REST_TIMES * (ended - began))
