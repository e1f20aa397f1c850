"""One look at a stream, without Spark: it runs and keeps up, or is started again, or somebody has to look after it."""

import shlex
import subprocess
import time
from dataclasses import dataclass
from datetime import timedelta
from tempfile import TemporaryFile
from typing import IO

from deltalake import DeltaTable

from jobs.errors import DataFault, StreamDead, StreamFailed, StreamStuck
from jobs.spec import Pipeline, Settings
from serving.clock import Clock, instant
from serving.keys import stream_wish_key
from serving.store import Store
from serving.stream import StreamRecord

COMMAND_SECONDS = 60
START_SECONDS = 180  # until a stream that was started says so: Spark's cold start, on a machine that has other work
POLL_SECONDS = 0.5
VARIABLE = "SCORELINE_STREAM_RESTART"


@dataclass(frozen=True)
class Post:
    """Where a pipeline's stream is watched from."""

    pipeline: Pipeline
    settings: Settings
    store: Store
    clock: Clock

    @property
    def limit(self) -> timedelta:
        """How long a stream that is behind may stand."""
        if self.pipeline.stream is None:
            raise ValueError(f"{self.pipeline.name} declares no stream")
        return timedelta(minutes=self.pipeline.stream.stuck_minutes)

    def look(self) -> str:
        """Return in a line how the stream is; one that is dead, and that nobody stopped, is started again before.

        Raises:
            StreamDead: it is dead, and was not started again.
            StreamFailed: it ended by what no restart mends.
            StreamStuck: it is behind, and has not gone on for longer than its pipeline allows.
        """
        name, record = self.pipeline.name, self.store.stream(self.pipeline.name)
        if self.store.ask("EXISTS", stream_wish_key(name)):
            return f"{name}: somebody stopped the stream; it runs again after `scoreline stream start {name}`"
        if record is not None and record.is_alive(self.clock.microseconds()):
            return self._keeping_up(record)
        self._refuse_failed(record)
        missing = [table for table in self.pipeline.tables if not DeltaTable.is_deltatable(self.settings.table(table))]
        if missing:
            return f"{name}: there is no {missing[0]} yet; `scoreline ingest {name}` makes the table"
        return f"{self._was(record)}: it was started again, and runs; {self._figures(self._started_again(record))}"

    def _keeping_up(self, record: StreamRecord) -> str:
        name, now = self.pipeline.name, self.clock.microseconds()
        if not record.behind or timedelta(microseconds=now - record.progressed_at) < self.limit:
            return f"{name}: the stream runs; {self._figures(record)}"
        remedy = f"it waits: {record.waits_for}" if record.waits_for else _end(record)
        raise StreamStuck(
            f"{name}: the stream runs and has not gone on since {_at(record.progressed_at)}; "
            f"{self._figures(record)}; {remedy}"
        )

    def _refuse_failed(self, record: StreamRecord | None) -> None:
        if record is not None and record.exit_code == DataFault.exit_code:
            raise StreamFailed(
                f"{self.pipeline.name}: the stream ended at {_at(record.told_at)} ({_who(record)}), and no restart "
                f"mends that: {record.fault}; once it is mended `scoreline stream start {self.pipeline.name}` runs it"
            )

    def _figures(self, record: StreamRecord) -> str:
        lag = record.lag_seconds(self.clock.microseconds())
        waiting = f"{record.behind} behind, the oldest for {lag:.0f} s" if record.behind else "all read"
        return f"micro-batch {record.batch}, events up to append {record.version}, {waiting}; {record.keys} scores"

    def _was(self, record: StreamRecord | None) -> str:
        name = self.pipeline.name
        if record is None:
            return f"{name}: no stream has said anything"
        if record.state == "stopped":
            fault = f" ({record.fault})" if record.fault else ""
            return (
                f"{name}: the stream ended at {_at(record.told_at)} ({_who(record)}), and not by "
                f"`scoreline stream stop`{fault}"
            )
        return f"{name}: the stream is dead: nothing was heard of {_who(record)} since {_at(record.told_at)}"

    def _started_again(self, before: StreamRecord | None) -> StreamRecord:
        name, asked_at = self.pipeline.name, self.clock.microseconds()
        if not self.settings.stream_restart:
            raise StreamDead(
                f"{self._was(before)}: `scoreline stream start {name}` runs it; {VARIABLE} may name a command that has "
                "it started"
            )
        command = [part.replace("{pipeline}", name) for part in shlex.split(self.settings.stream_restart)]
        fault = _fault_of(command)
        if fault:
            raise StreamDead(f"{self._was(before)}; {VARIABLE} did not start it again: {fault}")
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            record = self.store.stream(name)
            if record is not None and record.told_at >= asked_at:
                self._refuse_failed(record)
                if record.state == "running":
                    return record
            time.sleep(POLL_SECONDS)
        raise StreamDead(
            f"{self._was(before)}; {VARIABLE} ran, and the stream said nothing in {START_SECONDS} s: see its log"
        )


def _end(record: StreamRecord) -> str:
    return f"see its log, and end its process ({record.process}): the next look has it started again"


def _who(record: StreamRecord) -> str:
    return f"process {record.process}" if record.process else "it"


def _at(microseconds: int) -> str:
    return f"{instant(microseconds):%Y-%m-%d %H:%M:%S} UTC"


def _fault_of(command: list[str]) -> str:
    """Run a command to its end, and return why it failed, or nothing."""
    with TemporaryFile() as output:  # no pipe: what the command starts may keep its output open
        try:
            done = subprocess.run(  # noqa: S603  reason: an operator's own command, and no shell
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=COMMAND_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return f"{command[0]} did not return within {COMMAND_SECONDS} s: it must leave the stream to a supervisor"
        except OSError as fault:
            return f"{command[0]} cannot be run: {fault.strerror}"
        return f"{command[0]} ended with {done.returncode}: {_last_line(output)}" if done.returncode else ""


def _last_line(output: IO[bytes]) -> str:
    output.seek(0)
    lines = output.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
