"""From a topic to the events table: each message once, typed as a file's row, or quarantined with what is wrong."""

import logging
import time
from dataclasses import replace
from functools import cached_property
from threading import Event, Lock

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql.streaming.query import StreamingQuery

from expectations.rows import RowRules
from jobs.erasure.entry import Entrance
from jobs.errors import MessagesLost, StreamEnded
from jobs.ingest import with_reasons
from jobs.staging import read_messages, staged
from jobs.stream.live import LiveEvents
from jobs.stream.query import is_idle, why
from jobs.stream.sink import AppendOnly
from jobs.stream.site import Site
from jobs.stream.topic import Place, messages
from jobs.tables import quarantine_table
from serving.stream import StreamRecord

LOG = logging.getLogger(__name__)
PAUSE_S = 5.0
STOP_SECONDS = 10.0
# What Spark says when messages were removed before they were read, and then why.
LOST, BECAUSE = "data may have been lost because they are not available in Kafka", "Reason: "
LONGEST = 300  # characters of a reason
MESSAGE = "value binary, topic string, partition int, offset bigint, timestamp timestamp"
OURS = ("parse_fault", "raw", "reasons", "day", "file_digest")


class Loader:
    """The query that reads a pipeline's topic and appends what it finds."""

    def __init__(self, site: Site, place: Place, stopping: Event) -> None:
        self.site, self.place, self.stopping = site, place, stopping
        self.name, self.source = site.pipeline.events
        self.loaded = self.rejected = 0  # since the process began
        self.waits_for = ""  # why nothing is read now
        self.lock = Lock()
        self.query: StreamingQuery | None = None
        self.ended_at = 0.0

    def start(self) -> None:
        """Start the query, from where it was."""
        site, topic = self.site, self.site.pipeline.topic
        if topic is None:
            raise ValueError(f"{site.pipeline.name} declares no topic")
        site.lake.create(quarantine_table(self.name))
        found = messages(site.lake.spark, topic, self.place.starting, site.settings)
        writer = found.writeStream.foreachBatch(self.load)
        every = f"{site.stream.every_ms} milliseconds"
        kept = writer.option("checkpointLocation", site.lake.path(self.place.folder))
        self.query = kept.trigger(processingTime=every).start()

    def tend(self) -> None:
        """Start the query, and again some seconds after it has ended: Kafka was away, say; scores stay fresh meanwhile.

        Raises:
            MessagesLost: the topic has lost messages that were not read yet.
        """
        if self.query is None:
            if time.monotonic() - self.ended_at > PAUSE_S:
                self.start()
        elif not self.query.isActive:
            self._ended(self.query)
        elif is_idle(self.query):
            self.waits_for = ""

    def stop(self) -> None:
        """End the query, between two of its batches if it is soon through with one."""
        self.stopping.set()
        # Not held while the query ends: that waits for a batch that may wait for the lock.
        if self.lock.acquire(timeout=STOP_SECONDS):
            self.lock.release()
        if self.query is not None:
            self.query.stop()

    def told(self, record: StreamRecord) -> StreamRecord:
        """Return the stream's record with what there is to tell of its topic."""
        return replace(record, loaded=self.loaded, rejected=self.rejected, waits_for=record.waits_for or self.waits_for)

    def load(self, found: DataFrame, number: int) -> None:
        """Append a batch of messages, which may be the same `number` again: then nothing is appended twice.

        Raises:
            StreamEnded: the stream is about to stop.
            Fenced: others appended at the same moment, again and again.
        """
        with self.lock:
            if self.stopping.is_set():
                raise StreamEnded(f"{self.site.pipeline.name}: the stream is about to stop")
            text = read_messages(found, self.source, self.site.clock.now())
            rows = staged(text, self.source, self.site.pipeline.entity_key)
            self._append(self._entrance.let_in(with_reasons(rows, self._rules).toArrow()), number)
            self.waits_for = ""

    def _append(self, rows: pa.Table, number: int) -> None:
        """Append what is at fault, then the events, as ingest does."""
        transaction = (f"topic/{self.place.id}", number)
        is_good = pc.equal(pc.list_value_length(rows["reasons"]), 0)
        bad, good = rows.filter(pc.invert(is_good)), rows.filter(is_good)
        if len(bad) and self._quarantine.append_once(self._for_quarantine(bad), *transaction):
            self.rejected += len(bad)
            LOG.warning("%d messages are at fault: quarantine/%s says why", len(bad), self.name)
        own = [name for name in good.column_names if name not in OURS]
        events = good.select([name for name in own if name != "arrived_at" or self.source.arrived_at])
        if len(good) and self._live.append_once(events, self.site.clock.now(), *transaction):
            self.loaded += len(good)

    def _for_quarantine(self, bad: pa.Table) -> pa.Table:
        run_id = pa.repeat(pa.scalar(self.place.id, pa.string()), len(bad))
        return bad.append_column("run_id", run_id).select(quarantine_table(self.name).names)

    def _ended(self, query: StreamingQuery) -> None:
        self.query, self.ended_at, self.waits_for = None, time.monotonic(), why(query)
        _, lost, told = str(query.exception()).partition(LOST)
        if lost:
            name, reason = self.site.pipeline.name, " ".join(told.partition(BECAUSE)[2].split())[:LONGEST]
            raise MessagesLost(
                f"{name}: the topic has lost messages that were not read yet, or was made anew ({reason}): "
                f"`scoreline stream start {name} --reread` reads all that it has"
            )
        LOG.warning("%s: its topic is not read, trying again: %s", self.site.pipeline.name, self.waits_for)

    @cached_property
    def _entrance(self) -> Entrance:
        return Entrance(self.site.settings, self.name)

    @cached_property
    def _live(self) -> LiveEvents:
        return LiveEvents(self.site.settings.table(self.site.events))

    @cached_property
    def _quarantine(self) -> AppendOnly:
        return AppendOnly(self.site.settings.table(f"quarantine/{self.name}"))

    @cached_property
    def _rules(self) -> RowRules:
        """The row-level rules of the source's suite; what they know beside a row (a mean), they do not know here."""
        spark = self.site.lake.spark
        text = read_messages(spark.createDataFrame([], MESSAGE), self.source, self.site.clock.now())
        schema = staged(text, self.source, self.site.pipeline.entity_key).schema
        return RowRules.of(spark.createDataFrame([], schema), self.site.gate.suite(self.source.suite))
