"""Fresh scores of some keys by one head: of whom a micro-batch is about, or of all that wait, from the table."""

import logging
from collections.abc import Iterator
from datetime import datetime
from threading import Event
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.erasure.tombstones import Tombstones, without_erased
from jobs.errors import Overtaken, StreamEnded
from jobs.registry import ModelVersion
from jobs.scoring import score_apart, score_here
from jobs.staging import DELIVERY
from jobs.stream.dimensions import Dimensions
from jobs.stream.part import Part, newest_of
from jobs.stream.scored import Scored
from jobs.stream.sink import Origin, Sink
from jobs.stream.site import Site
from jobs.stream.touched import newest_by_key, short_histories, visible_once
from jobs.tables import VERSION
from serving.clock import instant, microseconds
from serving.head import Head
from serving.stream import Freshness

LOG = logging.getLogger(__name__)
AT_ONCE = 50_000  # keys whose scores pass through the driver at a time


class Scorer:
    """Scores keys of a site's pipeline; `freshness` is of what was new to it."""

    def __init__(self, site: Site, stopping: Event) -> None:
        self.site, self.stopping = site, stopping
        self.key = site.pipeline.entity_key
        self.sink = Sink(site)
        self.freshness = Freshness()
        self.tombstones = Tombstones(site.settings)
        self.dimensions = Dimensions(site.lake, list(site.pipeline.dimensions), self.key)

    def near(self, known: pa.Table, like: DataFrame) -> Part | None:
        """Return `known`, events each once, with columns as `like`, as one part; None where its keys are too many."""
        newest = newest_of(known, self.key)
        if len(newest) > AT_ONCE:
            return None
        events = like.sparkSession.createDataFrame(known, like.schema).coalesce(1)
        return Part(0, events, newest, score_here)

    def score(self, head: Head, part: Part, number: int, read: int) -> None:
        """Score whom the micro-batch `number` is about; `read` is the version of the events before it.

        Raises:
            Overtaken: the head's epoch ended meanwhile; nothing was written.
        """
        found, origin = self._scored(head, part)
        self.sink.write(head, found, origin, (f"{self.site.query_id}/{part.number}", number))
        self._time(found.scores, read)

    def catch_up(self, head: Head, after: datetime, read: int) -> int | None:
        """Score all keys of which an event has arrived since `after`, from the table.

        Returns when (microseconds) the next event arrives of those that claim to arrive later than now; None for none.

        Raises:
            Overtaken: the head's epoch ended meanwhile; nothing more was written.
            StreamEnded: the stream is about to stop.
        """
        now, before = self.site.clock.now(), self.sink.keys
        version = self.site.lake.appended(self.site.events)
        events = self.site.lake.read(self.site.events).where(F.col(VERSION) <= version)
        later = events.where(F.col("arrived_at") > F.lit(now)).agg(F.min("arrived_at").alias("due")).toArrow()["due"][0]
        known = self._arrived(events, after, now).persist()
        try:
            for part in _parts(known, self.key):
                if self.stopping.is_set():
                    raise StreamEnded(f"{self.site.pipeline.name}: the stream is about to stop")
                found, origin = self._scored(head, part)
                self.sink.write_anew(head, found, origin, f"{self.site.query_id}/{uuid4().hex}")
                self._time(found.scores, read)
        finally:
            known.unpersist()
        LOG.info("%s: %d scores of keys that have events since %s", head.pipeline, self.sink.keys - before, after)
        return microseconds(later.as_py()) if later.is_valid else None

    def _arrived(self, events: DataFrame, after: datetime, now: datetime) -> DataFrame:
        """Return all events, each once, of the keys of which one has arrived after `after` and up to `now`."""
        arrived = events.where((F.col("arrived_at") > F.lit(after)) & (F.col("arrived_at") <= F.lit(now)))
        found = events.join(arrived.select(self.key).distinct(), self.key, "left_semi").drop(*DELIVERY)
        touched = without_erased(found, self.site.settings, self.site.events)
        return visible_once(short_histories(touched, self.key, self.site.stream.longest_history), self.key, now)

    def _scored(self, head: Head, part: Part) -> tuple[Scored, Origin]:
        spine, attributes = part.spine(instant(head.as_of)), self.dimensions.now()
        known = part.events.drop(VERSION)
        found = self.site.recipes.of(head.model).scored(known, spine, attributes.of(spine, self.key), part.scoring)
        self._refuse_other_epoch(head)
        pinned = ModelVersion(head.model.name, head.model.version, head.model.digest, ())
        return found.each(part.known_at).each(self._without_erased), Origin(
            pinned, attributes.versions, self.site.query_id
        )

    def _without_erased(self, rows: pa.Table) -> pa.Table:
        """Return rows without those of erased keys, whose events anybody may have appended again."""
        for erased in self.tombstones.of(self.site.pipeline.events[0], [self.key]):
            rows = erased.without(rows, "key")
        return rows

    def _refuse_other_epoch(self, head: Head) -> None:
        """Refuse to write entries of an epoch that ended meanwhile: theirs may be removed by now, and these never."""
        live = self.site.store.head(head.pipeline)
        if live is None or live.epoch != head.epoch:
            raise Overtaken(f"{head.pipeline}: epoch {head.epoch} ended while its scores were made")

    def _time(self, scores: pa.Table, read: int) -> None:
        """Take the seconds from each key's newest event to now, when its score can be read.

        Only of what came since `read`: who is scored again for another reason has been fresh before.
        """
        if read < 0:
            return
        new = scores.filter(pc.greater(scores["events_version"], read))
        as_ofs = pc.cast(new["as_of"], pa.int64()).to_numpy()
        self.freshness = self.freshness.with_all(((self.site.clock.microseconds() - as_ofs) / 1e6).tolist())


def _parts(known: DataFrame, key: str) -> Iterator[Part]:
    """Give the events of some `AT_ONCE` of the keys at a time."""
    parts = -(-known.select(key).distinct().count() // AT_ONCE)
    for number in range(parts):
        some = known if parts == 1 else known.where(F.pmod(F.xxhash64(key), F.lit(parts)) == number)
        yield Part(number, some, newest_by_key(some, key).toArrow(), score_apart)
