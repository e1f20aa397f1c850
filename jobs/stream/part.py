"""Whom scores are made for at a time: some keys, with their events."""

from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame

from jobs.stream.scored import Scoring
from jobs.tables import VERSION


@dataclass(frozen=True)
class Part:
    """Some keys' events, each once, and `newest`: of each key the newest arrival (as_of) and version of its events.

    `scoring` is how their scores are made.
    """

    number: int
    events: DataFrame
    newest: pa.Table
    scoring: Scoring

    def spine(self, after: datetime) -> DataFrame:
        """Return the spine (key, as_of): each key's newest arrival, where that is after `after`."""
        newer = self.newest.filter(pc.greater(self.newest["as_of"], pa.scalar(after, self.newest["as_of"].type)))
        return self.events.sparkSession.createDataFrame(newer.select(["key", "as_of"])).coalesce(1)

    def known_at(self, rows: pa.Table) -> pa.Table:
        """Return rows (with key) with `events_version`: whoever reads the events at it sees those that were counted."""
        places = pc.index_in(rows["key"], value_set=self.newest["key"].combine_chunks())
        return rows.append_column("events_version", self.newest["version"].combine_chunks().take(places))


def newest_of(events: pa.Table, key: str) -> pa.Table:
    """Return key, as_of and version as a part's `newest`, of events that are held here."""
    found = events.group_by(key).aggregate([("arrived_at", "max"), (VERSION, "max")])
    return found.select([key, "arrived_at_max", f"{VERSION}_max"]).rename_columns(["key", "as_of", "version"])
