"""What a pipeline did last, in words: read from its tables and its stream's record, without Spark."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from jobs.spec import Pipeline, Settings
from serving.clock import instant, microseconds
from serving.errors import StreamUnreadable
from serving.keys import stream_wish_key
from serving.store import Store
from serving.stream import StreamRecord

LOOKED_BACK = timedelta(days=30)  # from the newest record: for failed expectations
READ = ("as_of", "step", "suite", "metric", "column", "success", "observed", "run_id", "measured_at")
MICROSECONDS = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class Lately:
    """A pipeline, its tables and the Redis with its stream's record."""

    settings: Settings
    pipeline: Pipeline
    store: Store

    def lines(self, now: datetime) -> Iterator[str]:
        """Give a line for the last run, the newest scores, the stream, and the last failed expectation."""
        measured = self._measured()
        yield f"run      {_last_run(measured) if measured else 'nothing was run yet: `scoreline ingest` comes first'}"
        yield f"scored   {self._newest_scores()}"
        if self.pipeline.stream is not None:
            yield f"stream   {self._stream(now)}"
        if failed := [row for row in measured if row["suite"] and not row["success"]]:
            yield f"failed   {_expectation(max(failed, key=_when))}"

    def _measured(self) -> list[dict[str, Any]]:
        """Return the newest rows of the quality table, or none."""
        table = self._table("quality")
        if table is None:
            return []
        files = pa.table(table.get_add_actions(flatten=True))
        newest = pc.max(files["max.measured_at"]).as_py() if "max.measured_at" in files.column_names else None
        recent = None if newest is None else pc.field("measured_at") >= pa.scalar(newest - LOOKED_BACK, MICROSECONDS)
        # Without threads, as the summary.
        rows: pa.Table = table.to_pyarrow_dataset().to_table(columns=list(READ), filter=recent, use_threads=False)
        return list(rows.to_pylist())

    def _newest_scores(self) -> str:
        table = self._table("scores")
        dates = [] if table is None else [part["as_of_date"] for part in table.partitions()]
        return f"the newest as of {max(dates)}, {len(set(dates))} dates in all" if dates else "nothing yet"

    def _table(self, kind: str) -> DeltaTable | None:
        with suppress(TableNotFoundError):
            return DeltaTable(self.settings.table(f"{kind}/{self.pipeline.name}"))
        return None

    def _stream(self, now: datetime) -> str:
        name = self.pipeline.name
        try:
            record = self.store.stream(name)
        except StreamUnreadable as fault:
            return f"UNREADABLE {fault}"
        if record is None:
            return f"never ran: `scoreline stream start {name}` runs it"
        at = microseconds(now)
        if record.is_alive(at):
            return f"runs, {_lag(record, at)}"
        if self.store.ask("EXISTS", stream_wish_key(name)):
            return f"stopped by somebody: `scoreline stream start {name}` runs it again"
        if record.state == "stopped" and not record.fault:  # with whatever ran it, such as `make down`
            return f"stopped since {_minute(instant(record.told_at))}; `scoreline stream start {name}` runs it again"
        why = f": {record.fault}" if record.fault else ""
        return f"DEAD since {_minute(instant(record.told_at))}{why}; `scoreline stream watch {name}` says what to do"


def _lag(record: StreamRecord, now: int) -> str:
    behind = f"{record.behind} behind, the oldest for {record.lag_seconds(now):.0f} s" if record.behind else "all read"
    return f"{behind}; it waits: {record.waits_for}" if record.waits_for else behind


def _when(row: dict[str, Any]) -> Any:
    return row["measured_at"]


def _last_run(measured: list[dict[str, Any]]) -> str:
    """Say what was run last: the newest measurement's run, with the steps that it left."""
    last = max(measured, key=lambda row: (_when(row), row["as_of"]))  # a range measures its dates at one moment
    mine = [row for row in measured if (row["run_id"], row["as_of"]) == (last["run_id"], last["as_of"])]
    steps = ", ".join(dict.fromkeys(row["step"] for row in sorted(mine, key=_when)))
    day = last["as_of"].date() - timedelta(days=1)
    return f"{steps} of day {day} by run {last['run_id']}, {_minute(last['measured_at'])}"


def _expectation(row: dict[str, Any]) -> str:
    of_column = f" of {row['column']}" if row["column"] else ""
    observed = f", observed {row['observed']}" if row["observed"] else ""
    day = row["as_of"].date() - timedelta(days=1)
    return (
        f"{row['suite']}: {row['metric']}{of_column}{observed}; {row['step']} of day {day} by run {row['run_id']}, "
        f"{_minute(row['measured_at'])}"
    )


def _minute(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
