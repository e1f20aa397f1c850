"""Population, features and labels: the pipeline's SQL over `events` and a spine, the same for every caller."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import BooleanType, IntegralType, StructField, StructType, TimestampType

from jobs.errors import FrameFault
from jobs.staging import DELIVERY

SPINE = ("key", "as_of")
_SPINE_TYPES = {"key": "string", "as_of": "timestamp"}
_AS_OFS = StructType([StructField("as_of", TimestampType(), nullable=False)])


def population(events: DataFrame, as_ofs: Sequence[datetime], sql: str) -> DataFrame:
    """Return the spine (key string, as_of timestamp): who is in the population at each of `as_ofs` (UTC).

    Raises:
        FrameFault: the SQL gives no key or as_of, or of another type.
    """
    instants = [(as_of.astimezone(UTC),) for as_of in as_ofs]
    dates = events.sparkSession.createDataFrame(instants, _AS_OFS)
    return with_spine(_run(sql, {"events": events, "as_ofs": dates}), "population.sql").select(*SPINE)


def features(events: DataFrame, spine: DataFrame, dimensions: Mapping[str, DataFrame], sql: str) -> DataFrame:
    """Return key, as_of and the features in the order of the SQL; it should give a row for each row of `spine`.

    Raises:
        FrameFault: the SQL gives no key or as_of, or of another type.
    """
    return with_spine(_run(sql, {"events": events, "spine": spine, **dimensions}), "features.sql")


def counted_once(events: DataFrame, key: str) -> DataFrame:
    """Return each event once, by the entity key `key` and event_id: the row that arrived first.

    What was seen live comes again in the day's file, and a sender that is not sure sends again. How an event was
    delivered is left out: it would be another feature of what was seen live. What has no arrival has not arrived, and
    must not count as what arrived first.
    """
    said = events.drop(*DELIVERY).where("arrived_at IS NOT NULL")
    rest = [name for name in said.columns if name not in (key, "event_id", "arrived_at")]
    first = Window.partitionBy(key, "event_id").orderBy("arrived_at", *rest)
    return said.withColumn("n", F.row_number().over(first)).where("n = 1").drop("n")


def labels(events: DataFrame, spine: DataFrame, sql: str, horizon_days: int) -> DataFrame:
    """Return key, as_of and label (an integer, 0 or 1); the label looks `horizon_days` ahead.

    Raises:
        FrameFault: the SQL gives no key, as_of or label, or of another type.
    """
    found = with_spine(_run(sql, {"events": events, "spine": spine}, horizon_days=horizon_days), "labels.sql")
    if "label" not in found.columns:
        raise FrameFault(f"labels.sql gives no label, but {', '.join(found.columns)}; name its 0 or 1 label")
    kind = found.schema["label"].dataType
    if not isinstance(kind, IntegralType) or isinstance(kind, BooleanType):
        raise FrameFault(f"labels.sql: label is {kind.simpleString()}; write CAST(... AS INT) AS label")
    return found.select(*SPINE, "label")


def with_spine(found: DataFrame, maker: str) -> DataFrame:
    """Return `found`, which the SQL file `maker` made, if it has a spine's columns.

    Raises:
        FrameFault: key or as_of is missing, or of another type.
    """
    for name, kind in _SPINE_TYPES.items():
        if name not in found.columns:
            raise FrameFault(f"{maker} gives no {name}, but {', '.join(found.columns)}; name one of its columns {name}")
        given = found.schema[name].dataType.simpleString()
        if given != kind:
            raise FrameFault(f"{maker}: {name} is {given}; write CAST(... AS {kind.upper()}) AS {name}")
    return found


def with_validity(rows: DataFrame, key: str) -> DataFrame:
    """Return a dimension's changes: `rows` without those that repeat the one before, and until when each is valid.

    `rows` may be snapshots in any order, several of a delivery too, if these are equal. `valid_to` is the key's next
    `valid_from`, else the end of time; no two intervals of a key overlap. The interval is when we knew it, not when it
    was true: it starts at delivery, so that joining on `valid_from <= as_of AND as_of < valid_to` can never look ahead.
    """
    own = [name for name in rows.columns if name not in (key, "valid_from", *DELIVERY)]
    content = F.struct(F.lit(0), *own)
    # Ordered by all there is: which of several equal rows stays must not depend on where Spark reads them.
    of_key = Window.partitionBy(key).orderBy("valid_from", *own, *(name for name in DELIVERY if name in rows.columns))
    before = F.lag(content).over(of_key)
    changes = rows.where("valid_from IS NOT NULL").select("*", before.eqNullSafe(content).alias("repeats"))
    following = F.lead("valid_from").over(Window.partitionBy(key).orderBy("valid_from"))
    valid_to = F.coalesce(following, F.lit("9999-12-31 00:00:00").cast("timestamp"))
    return changes.where("NOT repeats").drop("repeats").withColumn("valid_to", valid_to)


def feature_names(frame: DataFrame) -> tuple[str, ...]:
    """Return the names of the features of a features frame, in order."""
    return tuple(name for name in frame.columns if name not in SPINE)


def _run(sql: str, views: Mapping[str, DataFrame], **parameters: int) -> DataFrame:
    session = next(iter(views.values())).sparkSession
    for name, frame in views.items():
        frame.createOrReplaceTempView(name)
    return session.sql(sql, args=dict(parameters))
