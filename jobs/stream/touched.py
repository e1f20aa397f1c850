"""Whom a micro-batch is about: pure transforms between events, histories by key, and each key's newest event."""

from datetime import datetime

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from jobs.features import counted_once
from jobs.tables import VERSION

HISTORY, NEWEST = "history", "newest"


def histories(events: DataFrame, key: str) -> DataFrame:
    """Return `key` and `history`, all its events (array of struct), of a stream of events.

    As a query in update mode it gives the whole history of each key that has a new event, and keeps the others in the
    query's state: what a micro-batch costs depends on whom it is about and not on how many events there ever were.
    """
    rest = [name for name in events.columns if name != key]
    return events.groupBy(key).agg(F.collect_list(F.struct(*rest)).alias(HISTORY))


def events_of(touched: DataFrame, key: str, longest: int) -> DataFrame:
    """Return the events in histories, a row for each, and `newest`, the highest version of its key's events.

    A key with more than `longest` events has one row of NULLs in their place: a history is read as a whole each time.
    """
    short = F.when(F.size(HISTORY) <= longest, F.col(HISTORY))
    newest = F.array_max(F.col(f"{HISTORY}.{VERSION}")).alias(NEWEST)
    return touched.select(key, newest, F.explode_outer(short).alias("event")).select(key, NEWEST, "event.*")


def short_histories(events: DataFrame, key: str, longest: int) -> DataFrame:
    """Return the events of the keys with up to `longest` of them: of the others `events_of` gives none either."""
    many = F.count("*").over(Window.partitionBy(key))
    return events.withColumn("many", many).where(F.col("many") <= longest).drop("many")


def visible_once(events: DataFrame, key: str, now: datetime) -> DataFrame:
    """Return each event once, of those that have arrived by `now`.

    One that claims to arrive later, by a clock that is wrong, waits until then and holds up nothing else of its key.
    """
    return counted_once(events.where(F.col("arrived_at") <= F.lit(now)), key)


def whole_but_at_most(many: int, rows: DataFrame) -> DataFrame:
    """Return up to `many` of rows that are one partition; those of a second one would all be lost.

    All are computed, as a query's state must be. A LIMIT may stop as soon as there are enough.
    """
    return rows.where(F.monotonically_increasing_id() < many)


def newest_by_key(events: DataFrame, key: str) -> DataFrame:
    """Return `key`, and of its events the newest arrival (`as_of`) and the highest version (`version`)."""
    newest = (F.max("arrived_at").alias("as_of"), F.max(VERSION).alias("version"))
    return events.groupBy(F.col(key).alias("key")).agg(*newest)
