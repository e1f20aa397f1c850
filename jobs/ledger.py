"""The ledger of generations in Delta: tokens are reserved there before the first block is written."""

from collections.abc import Container
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby, pairwise
from operator import attrgetter

from pyspark.sql import DataFrame, Row

from jobs.errors import Fenced
from jobs.run import Run

RESERVED, LIVE, HISTORY, REMOVED = "reserved", "live", "history only", "removed"
NO_GENERATION = 0  # the token of what was never built
TRIES = 20
GRACE = timedelta(seconds=10)  # no reader holds a head longer


def _utc(instant: datetime) -> datetime:
    """Return an instant of a row, which Spark gives in local time and without saying so."""
    return instant.astimezone(UTC)


@dataclass(frozen=True)
class Entry:
    """What the ledger says of a generation."""

    token: int
    rows: int = 0
    checksum: int = 0
    buckets: int = 0
    note: str = ""


@dataclass(frozen=True)
class Generation:
    """A generation by all its entries: when it was reserved, when it last went live, and whether it is gone."""

    token: int
    buckets: int
    reserved_at: datetime
    live_at: datetime | None
    gone: bool


def _generation(token: int, events: list[Row]) -> Generation:
    times = [_utc(row.at) for row in events]
    live = [time for time, row in zip(times, events, strict=True) if row.event == LIVE]
    gone = any(row.event in (REMOVED, HISTORY) for row in events)
    return Generation(token, max(row.buckets for row in events), min(times), max(live, default=None), gone)


@dataclass(frozen=True)
class Ledger:
    """The ledger of one run's pipeline."""

    run: Run

    @property
    def name(self) -> str:
        """The ledger's table."""
        return f"publications/{self.run.pipeline.name}"

    def reserve(self, rows: int, buckets: int, above: int) -> Entry:
        """Return an entry with a token that nobody else has, above `above` and all that were reserved before.

        The token is the version of a Delta transaction: of two publishers that try the same, one alone can commit.
        What is live in Redis is named in `above`, since a ledger that was lost or restored does not know of it.
        """
        for _ in range(TRIES):
            fence = self.run.lake.fence(self.name, "tokens")
            entry = Entry(max(fence.version, above + 1, 1), rows, 0, buckets)
            try:
                reserved = self._rows([(RESERVED, entry)])
                self.run.lake.append(reserved, self.name, replace(fence, version=entry.token))
            except Fenced:
                continue
            return entry
        raise Fenced(f"{self.name}: no token was free in {TRIES} tries; run the task again")

    def write(self, events: list[tuple[str, Entry]]) -> None:
        """Put on record what happened to generations."""
        self._rows(events).write.format("delta").mode("append").save(self.run.lake.path(self.name))

    def removable(self, live: Container[int]) -> list[Entry]:
        """Return the generations that may go once another one goes live, which the ledger does not have yet.

        Those are not of `live` (that one, and what it replaces), not of the last that were, and nobody's work any more.

        A generation that never went live counts as abandoned when its task must have ended, by the pipeline's timeout.
        """
        known = [one for one in self._generations() if not one.gone]
        lived = [one for one in known if one.live_at is not None]
        others = self.run.pipeline.publication.keep - 1
        kept = {one.token for one in lived[max(0, len(lived) - others) :]}
        now = self.run.clock.now()
        overtaken = {one.token for one, later in pairwise(lived) if later.live_at and later.live_at <= now - GRACE}
        timeout = timedelta(minutes=self.run.pipeline.schedule.timeout_minutes)
        abandoned = {one.token for one in known if one.live_at is None and one.reserved_at < now - timeout}
        may_go = (overtaken | abandoned) - kept
        return [Entry(one.token, buckets=one.buckets) for one in known if one.token in may_go and one.token not in live]

    def _generations(self) -> list["Generation"]:
        """Return what the ledger knows of each generation, by token; a few rows a day, so that they fit in memory."""
        rows = self.run.lake.read(self.name).select("token", "event", "at", "buckets").collect()
        by_token = groupby(sorted(rows, key=attrgetter("token")), key=attrgetter("token"))
        return [_generation(token, list(events)) for token, events in by_token]

    def _rows(self, events: list[tuple[str, Entry]]) -> DataFrame:
        lake, run = self.run.lake, self.run
        rows = [
            (
                one.token,
                event,
                run.clock.now(),
                run.as_of,
                run.run_id,
                one.rows,
                str(one.checksum),
                one.buckets,
                one.note,
            )
            for event, one in events
        ]
        return lake.spark.createDataFrame(rows, lake.read(self.name).schema).coalesce(1)
