"""Whether a stream may run: Redis is there to ask, no other one of its pipeline lives, and nobody stopped it."""

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Event

from jobs.errors import ScorelineError, StreamRuns
from serving.clock import Clock
from serving.errors import ServingError, StoreUnavailable, StreamUnreadable
from serving.keys import stream_key, stream_wish_key
from serving.store import Store
from serving.stream import SILENCE, StreamRecord

LOG = logging.getLogger(__name__)
POLL_SECONDS = 0.5
PAUSE_SECONDS = 5.0
LONGEST = 1_000  # characters of a fault


@dataclass(frozen=True)
class Turn:
    """A process that is about to be the stream of a pipeline, until it is told to stop."""

    pipeline: str
    store: Store
    clock: Clock
    stopping: Event

    def comes(self) -> bool:
        """Wait until Redis is there, and no other stream lives; return False where it is told to stop before.

        Raises:
            StreamRuns: another one lives.
        """
        if not self._finds_redis():
            return False
        first, now = self._record(), self.clock.microseconds()
        if first is None or not first.is_alive(now) or _is_gone(first.process):
            return True
        seconds = min(SILENCE, SILENCE - (now - first.told_at)) / 1e6
        LOG.info(
            "%s: process %s has just said that it is the stream: in %.0f s without another word it is known to be dead",
            self.pipeline, first.process, seconds,
        )  # fmt: skip
        return self._outlasts(first, time.monotonic() + seconds)

    def was_stopped(self) -> bool:
        """Return whether somebody stopped the stream, and nobody has started it since."""
        return bool(self.store.ask("EXISTS", stream_wish_key(self.pipeline)))

    def forget_stop(self) -> None:
        """Take notice that somebody starts it."""
        self.store.unlink([stream_wish_key(self.pipeline)])

    @contextmanager
    def on_record(self) -> Iterator[None]:
        """Put the fault that ends the block into the stream's record, for whoever watches it."""
        try:
            yield
        except (ScorelineError, ServingError) as fault:
            try:
                self._tell(
                    " ".join(str(fault).split())[:LONGEST], getattr(fault, "exit_code", ScorelineError.exit_code)
                )
            except ServingError as other:
                LOG.warning("%s", other)
            raise

    def _tell(self, fault: str, exit_code: int) -> None:
        now = self.clock.microseconds()
        record = self._record() or StreamRecord(state="stopped", query_id="", started_at=now, told_at=now)
        ended = replace(record, state="stopped", told_at=now, fault=fault, exit_code=exit_code)
        self.store.ask("SET", stream_key(self.pipeline), ended.to_json())

    def _finds_redis(self) -> bool:
        while not self.stopping.is_set():
            try:
                self.store.ask("EXISTS", stream_key(self.pipeline))
            except StoreUnavailable as fault:
                LOG.warning("%s: the stream waits for Redis: %s", self.pipeline, fault)
                self.stopping.wait(PAUSE_SECONDS)
            else:
                return True
        return False

    def _outlasts(self, first: StreamRecord, deadline: float) -> bool:
        while time.monotonic() < deadline:
            if self.stopping.wait(POLL_SECONDS):
                return False
            record = self._record()
            if record is None or record.state == "stopped":
                return True
            if record.told_at != first.told_at:
                raise StreamRuns(
                    f"{self.pipeline}: its stream runs already, as process {record.process}: "
                    f"`scoreline stream stop {self.pipeline}` ends it"
                )
        return True

    def _record(self) -> StreamRecord | None:
        try:
            return self.store.stream(self.pipeline)
        except StreamUnreadable as fault:
            LOG.warning("%s", fault)
            return None


def outlasting(pipeline: str, store: Store, clock: Clock, seconds: float) -> StreamRecord | None:
    """Wait until a stream that was told to stop has ended; return the record of one that lives after `seconds`."""
    deadline = time.monotonic() + seconds
    while (record := store.stream(pipeline)) and record.is_alive(clock.microseconds()):
        if time.monotonic() > deadline:
            return record
        time.sleep(POLL_SECONDS)
    return None


def _is_gone(process: str) -> bool:
    """Return whether a process ("number on host") was one of this host, and is none any more."""
    number, _, host = process.partition(" on ")
    if host != socket.gethostname() or not number.isdigit():
        return False
    if int(number) == os.getpid():  # as in a container that was started again
        return True
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
