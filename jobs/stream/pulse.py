"""What a stream says of itself each second: that it lives, how far it has read, and what waits."""

import logging
import os
import socket
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count
from threading import Event, Thread
from typing import Literal

from deltalake import DeltaTable
from pyspark.sql.streaming.query import StreamingQuery

from jobs.stream.batch import Batches
from jobs.stream.loader import Loader
from jobs.stream.query import is_idle, needed_version
from jobs.stream.site import Site
from jobs.stream.tail import Tail
from jobs.stream.tidy import tidy
from jobs.tables import APPENDS
from serving.errors import ServingError
from serving.keys import stream_key, stream_wish_key
from serving.store import Store
from serving.stream import StreamRecord

LOG = logging.getLogger(__name__)
BEAT_SECONDS = 1.0
TIDY_BEATS = 30
LONGEST_REASON = 300  # characters


class Backlog:
    """The appends to the events table at `path` that a stream has not read, and since when they wait."""

    def __init__(self, path: str) -> None:
        self.tail = Tail(path)
        self.newest = self.read = -1
        self._seen: deque[tuple[int, int]] = deque()  # an append, and when (microseconds) it was there at first

    def look(self, now: int) -> None:
        """Take notice of what has been appended."""
        self.tail.follow()
        newest = self.tail.written(APPENDS)
        if newest is not None and newest > self.newest:
            self.newest = newest
            self._seen.append((newest, now))

    def read_up_to(self, version: int) -> None:
        """Take notice of what has been read."""
        self.read = max(self.read, version)
        while self._seen and self._seen[0][0] <= self.read:
            self._seen.popleft()

    def read_all_before(self, then: int) -> None:
        """Take notice that what was there at an instant (microseconds) has been read: an append may have no rows."""
        while self._seen and self._seen[0][1] <= then:
            self.read_up_to(self._seen[0][0])

    @property
    def appends(self) -> int:
        """How many were not read."""
        return max(0, self.newest - self.read)

    @property
    def since(self) -> int | None:
        """When (microseconds) the oldest of them was there at first."""
        return self._seen[0][1] if self._seen else None


class Pulse:
    """Tells how the stream of a site is."""

    def __init__(self, site: Site, batches: Batches, loader: Loader | None = None) -> None:
        self.site, self.batches, self.loader = site, batches, loader
        self.backlog = Backlog(site.settings.table(site.events))
        self.started_at = self.progressed_at = site.clock.microseconds()
        self.number = batches.number
        self.needed = 0  # the version of the events' log from which a query goes on that is started again
        self.tidies = True

    @contextmanager
    def beating(self, query: StreamingQuery) -> Iterator[None]:
        """Tell how the stream is, each second until the block ends, whatever a micro-batch waits for meanwhile."""
        ended = Event()
        thread = Thread(target=self._beat, args=(query, ended), name="pulse", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def look(self, query: StreamingQuery) -> None:
        """See what has been appended, read and done since the last look."""
        now = self.site.clock.microseconds()
        self.backlog.look(now)
        self.backlog.read_up_to(self.batches.version)
        self.needed = max(self.needed, needed_version(query))
        if is_idle(query):
            self.backlog.read_all_before(now - 1000 * self.site.stream.every_ms - 1_000_000)
            self.progressed_at = now
        if self.batches.number != self.number:
            self.number, self.progressed_at = self.batches.number, now

    def tidy(self) -> None:
        """Keep the logs short that this stream looks at many times a minute; where that cannot be, they grow."""
        if self.tidies:
            live = self.site.settings.table(f"scores_live/{self.site.pipeline.name}")
            fresh = DeltaTable(live).version()
            self._tidy(self.site.settings.table(self.site.events), self.needed, self.backlog.tail.table.version())
            self._tidy(live, fresh, fresh)

    def _tidy(self, table: str, needed: int, newest: int) -> None:
        try:
            tidy(table, needed, newest)
        except (OSError, ValueError, KeyError) as fault:
            self.tidies = False  # it will not be otherwise in half a minute
            LOG.warning("%s: its log is not kept short, and each look at it takes longer: %s", table, fault)

    def record(self, state: Literal["running", "stopped"]) -> StreamRecord:
        """Return what there is to tell."""
        record = replace(
            self.batches.record(state, self.started_at),
            version=self.backlog.read,
            behind=self.backlog.appends,
            behind_since=self.backlog.since,
            progressed_at=self.progressed_at,
            waits_for=self.batches.waits_for[:LONGEST_REASON],
            process=f"{os.getpid()} on {socket.gethostname()}",
        )
        return self.loader.told(record) if self.loader else record

    def tell(self, state: Literal["running", "stopped"], store: Store) -> None:
        """Put it on record; where Redis is away nobody can read it either."""
        try:
            store.ask("SET", stream_key(self.site.pipeline.name), self.record(state).to_json())
        except ServingError as fault:
            LOG.warning("%s", fault)

    def listen(self, store: Store) -> None:
        """Stop the stream where that is wished; here it is seen whatever a micro-batch waits for."""
        with suppress(ServingError):  # the wish outlasts it
            if store.ask("EXISTS", stream_wish_key(self.site.pipeline.name)):
                self.batches.stopping.set()

    def _beat(self, query: StreamingQuery, ended: Event) -> None:
        with Store(self.site.store.url) as store:  # of its own: the other one may be waiting for its answer
            self._recall(store)
            for beat in count():
                try:
                    self.look(query)
                    if beat % TIDY_BEATS == TIDY_BEATS - 1:
                        self.tidy()
                except Exception as fault:  # noqa: BLE001  reason: whatever it is, a stream that says no word is taken for dead
                    LOG.warning("%s: its log cannot be looked at for now: %s", self.site.events, fault)
                self.tell("running", store)
                self.listen(store)
                if ended.wait(BEAT_SECONDS):
                    return

    def _recall(self, store: Store) -> None:
        """Begin with what the stream had read before this process."""
        try:
            before = store.stream(self.site.pipeline.name)
        except ServingError as fault:
            LOG.warning("%s", fault)
        else:
            if before is not None and before.query_id == self.site.query_id:
                self.backlog.read_up_to(before.version)
