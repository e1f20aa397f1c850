"""The long-running job: starts the query, tells how it is, looks after what is live, and stops between two batches."""

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from types import FrameType

from deltalake import DeltaTable
from pyspark.sql.streaming.query import StreamingQuery

from jobs.errors import RegistryUnavailable, StreamEnded
from jobs.stream.batch import Batches
from jobs.stream.checkpoint import Checkpoint
from jobs.stream.loader import Loader
from jobs.stream.pulse import Pulse
from jobs.stream.query import start, why
from jobs.stream.site import Site
from jobs.tables import live_quarantine_table, live_scores_table
from serving.errors import ServingError
from serving.keys import stream_wish_key

LOG = logging.getLogger(__name__)
LOOK_SECONDS = 1.0
WAIT_SECONDS = 5.0


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
    stopping = Event()

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  reason: a handler's signature
        stopping.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Service:
    """One stream, from its start to its stop."""

    def __init__(self, site: Site, stopping: Event, loader: Loader | None = None) -> None:
        self.site, self.stopping, self.loader = site, stopping, loader
        for table in (live_scores_table(site.pipeline.name), live_quarantine_table(site.pipeline.name)):
            site.lake.create(table)
        self.batches = Batches(site, stopping)
        self.pulse = Pulse(site, self.batches, loader)

    def run(self, checkpoint: Checkpoint) -> None:
        """Run the query until it is to stop.

        Raises:
            StreamEnded: it ended by itself; what it had not done is done when it is started again.
            MessagesLost: the topic has lost messages that were not read yet.
        """
        lake, name = self.site.lake, self.site.pipeline.name
        query = start(self.site, self.batches.process, lake.path(checkpoint.folder))
        LOG.info("%s: the stream runs", name)
        try:
            with self.pulse.beating(query):
                self._attend(query)
        finally:
            self.pulse.tell("stopped", self.site.store)
        LOG.info("%s: the stream has stopped", name)

    def _attend(self, query: StreamingQuery) -> None:
        try:
            self._watch(query)
        finally:
            self.stopping.set()
            if self.loader is not None:
                self.loader.stop()
            with self.batches.lock:  # what has begun is brought to its end, and nothing begins any more
                pass
            query.stop()  # not within: it waits for a batch that may wait for the lock

    def _watch(self, query: StreamingQuery) -> None:
        while not self.stopping.wait(LOOK_SECONDS):
            if not query.isActive:
                raise StreamEnded(f"{self.site.pipeline.name}: the stream ended: {why(query)}")
            if self.loader is not None:
                self.loader.tend()
            try:
                if self.site.store.ask("EXISTS", stream_wish_key(self.site.pipeline.name)):
                    return
                self.batches.idle()
            except (ServingError, RegistryUnavailable) as fault:
                LOG.warning("%s", fault)
