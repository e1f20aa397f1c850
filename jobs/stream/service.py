"""The long-running job: starts the query, tells how it is, looks after what is live, and stops between two batches."""

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from types import FrameType

from deltalake import DeltaTable
from py4j.protocol import Py4JJavaError
from pyspark.sql import DataFrame
from pyspark.sql.streaming.query import StreamingQuery

from jobs.errors import DataFault, RegistryUnavailable, StreamEnded
from jobs.stream.batch import Batches
from jobs.stream.checkpoint import Checkpoint, forget
from jobs.stream.loader import Loader
from jobs.stream.pulse import Pulse
from jobs.stream.query import is_idle, missed_commit, outlived_log, start, why
from jobs.stream.site import Site
from jobs.tables import live_quarantine_table, live_scores_table
from serving.errors import ServingError

LOG = logging.getLogger(__name__)
LOOK_SECONDS = 1.0
WAIT_SECONDS = 5.0
MOST_GAPS = 3  # one that stays is no matter of a moment
SIGNALS = (signal.SIGTERM, signal.SIGINT)


def wait_for_tables(paths: list[str], stopping: Event) -> bool:
    """Wait until there is a table at each of `paths`; return False where the process is to stop before."""
    while missing := [path for path in paths if not DeltaTable.is_deltatable(path)]:
        LOG.info("waiting for %s: `scoreline ingest` makes it", missing[0])
        if stopping.wait(WAIT_SECONDS):
            return False
    return True


@contextmanager
def told_to_stop() -> Iterator[Event]:
    """Give an event that SIGTERM and SIGINT set."""
    before, stopping = {number: signal.getsignal(number) for number in SIGNALS}, Event()
    listen(stopping)
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def listen(stopping: Event) -> None:
    """Have SIGTERM and SIGINT set the event; again after Spark has begun, which has a handler of its own for SIGINT."""

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  reason: a handler's signature
        stopping.set()

    for number in SIGNALS:
        signal.signal(number, stop)


class Service:
    """One stream, from its start to its stop."""

    def __init__(self, site: Site, stopping: Event, loader: Loader | None = None) -> None:
        self.site, self.stopping, self.loader = site, stopping, loader
        for table in (live_scores_table(site.pipeline.name), live_quarantine_table(site.pipeline.name)):
            site.lake.create(table)
        self.batches = Batches(site, stopping)
        self.pulse = Pulse(site, self.batches, loader)
        self.gaps = 0  # in the log, seen one after another without a micro-batch in between
        self.fault: DataFault | None = None  # of a micro-batch; Spark would keep but its words

    def run(self, checkpoint: Checkpoint) -> None:
        """Run the query until it is to stop.

        Raises:
            StreamEnded: it ended by itself; what it had not done is done when it is started again.
            MessagesLost: the topic has lost messages that were not read yet.
            DataFault: what a micro-batch was given is at fault.
        """
        name = self.site.pipeline.name
        try:
            while not self.stopping.is_set():
                self._run(self.site.lake.path(checkpoint.folder))
        finally:
            self.stopping.set()
            if self.loader is not None:
                self.loader.stop()
            self.pulse.tell("stopped", self.site.store)
        LOG.info("%s: the stream has stopped", name)

    def _run(self, checkpoint: str) -> None:
        """Run the query until it is to stop, or is to be started again from where it was."""
        query, began = self._started(checkpoint), self.batches.number
        LOG.info("%s: the stream runs", self.site.pipeline.name)
        with self.pulse.beating(query):
            try:
                self._watch(query)
            except BaseException as fault:
                self.gaps = self.gaps + 1 if self.batches.number == began else 1
                if not missed_commit(query, fault) or self.gaps > MOST_GAPS:
                    self.stopping.set()
                    self._forget_outlived(query)
                    raise
                LOG.warning("%s; it goes on from its checkpoint", fault)
            finally:
                with self.batches.lock:  # what has begun is brought to its end, and nothing begins any more
                    pass
                query.stop()  # not within: it waits for a batch that may wait for the lock
        self.stopping.wait(LOOK_SECONDS if self.gaps else 0)

    def _started(self, checkpoint: str) -> StreamingQuery:
        try:
            return start(self.site, self._process, checkpoint)
        except Py4JJavaError as fault:
            told = fault.java_exception.getMessage()
            raise StreamEnded(f"{self.site.pipeline.name}: the stream cannot start for now: {told}") from fault

    def _process(self, histories: DataFrame, number: int) -> None:
        try:
            self.batches.process(histories, number)
        except DataFault as fault:
            self.fault = fault
            raise

    def _watch(self, query: StreamingQuery) -> None:
        while not self.stopping.wait(LOOK_SECONDS):
            if not query.isActive:
                raise self.fault or StreamEnded(f"{self.site.pipeline.name}: the stream ended: {why(query)}")
            if self.loader is not None:
                self.loader.tend()
            # A stream that was started again may have no micro-batch for long, and what was live may have changed.
            if self.batches.number >= 0 or is_idle(query):
                self._look_after()

    def _look_after(self) -> None:
        try:
            self.batches.idle()
        except (ServingError, RegistryUnavailable) as fault:
            LOG.warning("%s", fault)
        except StreamEnded:
            if not self.stopping.is_set():
                raise

    def _forget_outlived(self, query: StreamingQuery) -> None:
        """Forget a checkpoint from which nobody can go on, for all that it was made of is in the table, and say so."""
        name = self.site.pipeline.name
        if not outlived_log(query, self.site.settings.table(self.site.events)):
            return
        forget(self.site.lake, self.site.pipeline)
        raise StreamEnded(
            f"{name}: the stream stood still for so long that what came next is gone from the log of its events; its "
            f"checkpoint is forgotten: `scoreline stream start {name}` begins anew from the events table"
        )
