"""What a pipeline's SQL is tried on: some keys' own events, bounded and read once, or rows made for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from jobs.features import counted_once
from jobs.lake import Lake
from jobs.spec import Pipeline
from jobs.staging import DELIVERY
from jobs.tables import VERSION, Table, dimension_table, events_table

KEYS, ROWS_OF_KEY = 200, 40
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Sample:
    """Rows to try SQL on.

    Attributes:
        events: Some keys' events, each once, as the view `events` has them.
        dimensions: Those keys' rows of each dimension, as delivered.
        as_ofs: Dates to look back from, ascending, from the earliest that there can be to the newest.
        origin: In words, where the rows are from.
    """

    events: pa.Table
    dimensions: Mapping[str, pa.Table]
    as_ofs: tuple[datetime, ...]
    origin: str

    @property
    def newest(self) -> datetime:
        """The newest as_of."""
        return self.as_ofs[-1]


def read_sample(lake: Lake, pipeline: Pipeline) -> Sample | None:
    """Return a sample of what was ingested; None where a table is not there, or none of its rows has a key."""
    if not all(lake.has(table) for table in pipeline.tables):
        return None
    key, (name, source) = pipeline.entity_key, pipeline.events
    known = _declared(lake, events_table(name, source))
    keys = known.where(F.length(key) > 0).select(key).distinct().orderBy(F.xxhash64(key), key).limit(KEYS).persist()
    try:
        first, last = known.agg(F.min("day"), F.max("day")).collect()[0]
        found = keys.count()
        if first is None or not found:
            return None
        tables = {each: dimension_table(each, declared) for each, declared in pipeline.dimensions.items()}
        return Sample(
            counted_once(_some(known, keys), key).toArrow(),
            {each: _some(_declared(lake, table), keys).drop(*DELIVERY).toArrow() for each, table in tables.items()},
            as_ofs_between(pipeline, first, last),
            f"{found} keys of {pipeline.tables[0]}",
        )
    finally:
        keys.unpersist()


def as_ofs_between(pipeline: Pipeline, first: date, last: date) -> tuple[datetime, ...]:
    """Return as_of dates of the days from `first` to `last`: the ends, one in the middle, and the first of training."""
    ends = (first + DAY, last + DAY)
    chosen = {*ends, first + (last - first) / 2 + DAY, min(max(pipeline.training.first_as_of, ends[0]), ends[1])}
    return tuple(datetime.combine(each, time(), UTC) for each in sorted(chosen))


def empty_like(spark: SparkSession, table: Table) -> pa.Table:
    """Return no rows, with the columns that the view of `table` has."""
    columns = (f"`{column.name}` {column.type}" for column in table.columns if column.name not in (VERSION, *DELIVERY))
    return spark.createDataFrame([], ", ".join(columns)).toArrow()


def _declared(lake: Lake, table: Table) -> DataFrame:
    """Return a table with the columns and types that are declared now, whichever it has."""
    stored = lake.read_at(table.name, lake.appended(table.name))
    return stored.select(
        [
            (F.col(column.name) if column.name in stored.columns else F.lit(None))
            .try_cast(column.type)
            .alias(column.name)
            for column in table.columns
            if column.name != VERSION
        ]
    )


def _some(rows: DataFrame, keys: DataFrame) -> DataFrame:
    """Return up to ROWS_OF_KEY rows of each key, spread over all that it has."""
    key = keys.columns[0]
    of_key = Window.partitionBy(key).orderBy(F.xxhash64(*rows.columns), *rows.columns)
    mine = rows.join(F.broadcast(keys), key, "left_semi")
    return mine.withColumn("n", F.row_number().over(of_key)).where(F.col("n") <= ROWS_OF_KEY).drop("n")
