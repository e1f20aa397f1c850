"""Population, features and labels: the pipeline's SQL over `events` and a spine, the same for every caller."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StructField, StructType, TimestampType

SPINE = ("key", "as_of")
_AS_OFS = StructType([StructField("as_of", TimestampType(), nullable=False)])


def population(events: DataFrame, as_ofs: Sequence[datetime], sql: str) -> DataFrame:
    """Return the spine (key string, as_of timestamp): who is in the population at each of `as_ofs` (UTC)."""
    instants = [(as_of.astimezone(UTC),) for as_of in as_ofs]
    dates = events.sparkSession.createDataFrame(instants, _AS_OFS)
    return _run(sql, {"events": events, "as_ofs": dates}).select(*SPINE)


def features(events: DataFrame, spine: DataFrame, dimensions: Mapping[str, DataFrame], sql: str) -> DataFrame:
    """Return one row for each row of `spine`: key, as_of, then the features in the order of the SQL."""
    return _run(sql, {"events": events, "spine": spine, **dimensions})


def labels(events: DataFrame, spine: DataFrame, sql: str, horizon_days: int) -> DataFrame:
    """Return key, as_of and label (INT, 0 or 1) for each row of `spine`; the label looks `horizon_days` ahead."""
    return _run(sql, {"events": events, "spine": spine}, horizon_days=horizon_days)


def with_validity(rows: DataFrame, key: str) -> DataFrame:
    """Return a dimension's rows with `valid_to`: the next `valid_from` of the key, else the end of time.

    The interval is when we knew it, not when it was true: it starts at delivery, so that joining on
    `valid_from <= as_of AND as_of < valid_to` can never look ahead.
    """
    following = F.expr(f"lead(valid_from) OVER (PARTITION BY {key} ORDER BY valid_from)")
    return rows.withColumn("valid_to", F.coalesce(following, F.lit("9999-12-31 00:00:00").cast("timestamp")))


def feature_names(frame: DataFrame) -> tuple[str, ...]:
    """Return the names of the features of a features frame, in order."""
    return tuple(name for name in frame.columns if name not in SPINE)


def _run(sql: str, views: Mapping[str, DataFrame], **parameters: int) -> DataFrame:
    session = next(iter(views.values())).sparkSession
    for name, frame in views.items():
        frame.createOrReplaceTempView(name)
    return session.sql(sql, args=dict(parameters))
