"""The end of scoring: partitions replaced behind their fences, and what other rows replace kept. History is rows."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.erasure.tombstones import Tombstones
from jobs.fencing import Fence
from jobs.run import CHAMPION, Dates, of_dates, partitions
from jobs.tables import Table, features_table, scores_table, superseded

LOG = logging.getLogger(__name__)
COMPARED = ("as_of_date", "key", "score", "model_version", "model_digest", "events_version", "dimension_versions")


@dataclass(frozen=True)
class Result:
    """What an attempt has staged: the features and the scores, and how many rows of each a date has."""

    features: DataFrame
    scores: DataFrame
    rows: dict[date, int]


@dataclass(frozen=True)
class Fences:
    """The right to replace the features of each date, and that to replace its scores."""

    features: list[Fence]
    scores: list[Fence]

    @classmethod
    def of(cls, dates: Dates) -> "Fences":
        """Return these of all the dates, as of now."""
        name, lake = dates.any.pipeline.name, dates.any.lake
        applications = [f"{name}/{as_of}/{CHAMPION}" for as_of in dates.as_ofs]
        return cls(lake.fences(f"features/{name}", applications), lake.fences(f"scores/{name}", applications))


def replace_partitions(dates: Dates, result: Result, fences: Fences, before: Collection[date]) -> None:
    """Replace the dates' features, then their scores; the scores are what makes a result visible.

    `before` are those of the dates that have scores.

    Raises:
        Fenced: another attempt of one of the dates committed first.
    """
    run = dates.any
    lake, name, now = run.lake, run.pipeline.name, run.clock.now()
    seen, scores = features_table(name, result.features.schema), scores_table(name)
    lake.refuse_other_types(seen)  # or rows would be kept as superseded that nothing replaces
    dated = result.features.withColumn("as_of_date", F.to_date("as_of"))
    kept = _alike(dates, result, dated, before) if before else {}
    if others := set(before) - kept.keys():
        held = {as_of: fence for as_of, fence in zip(dates.as_ofs, fences.scores, strict=True) if as_of in others}
        _supersede(dates, held, now)
    lake.create(seen)
    lake.replace(dated, seen.name, of_dates(dates.as_ofs), *fences.features)
    written = result.scores.withColumn("scored_at", _written_first(kept, now)).select(*scores.names)
    lake.replace(written, scores.name, partitions(dates.as_ofs), *fences.scores)
    LOG.info("%s: %d rows for %s", scores.name, sum(result.rows.values()), dates)


def _alike(dates: Dates, result: Result, features: DataFrame, before: Collection[date]) -> dict[date, int | None]:
    """Return which dates of `before` have what was staged now, and when (microseconds) their scores were first.

    None where they were written before that was kept. A feature that is new makes no difference to what there was.
    """
    lake, name = dates.any.lake, dates.any.pipeline.name
    stored = lake.read(f"scores/{name}").where(partitions(before))
    lost = _lost(stored, result.scores, COMPARED)
    if lake.has(f"features/{name}"):
        known = lake.read(f"features/{name}").where(of_dates(before))
        lost = lost.union(_lost(known, features, known.columns))
    gone = lost.distinct().collect()
    first = F.unix_micros(F.min("scored_at"))
    found = stored.groupBy("as_of_date").agg(F.count("*"), first).collect()
    other = {row.as_of_date for row in gone}
    return {as_of: at for as_of, rows, at in found if as_of not in other and rows == result.rows[as_of]}


def _lost(stored: DataFrame, staged: DataFrame, names: Sequence[str]) -> DataFrame:
    """Return the `as_of_date` of each stored row that is not among the staged ones, by the values of these columns.

    As text, for maps have no other order; a column that is not staged has no values.
    """
    text = F.to_json(F.struct(*names)).alias("text")
    missing = {name: F.lit(None).cast(stored.schema[name].dataType) for name in set(names) - set(staged.columns)}
    pairs = (frame.select("as_of_date", text) for frame in (stored, staged.withColumns(missing)))
    return next(pairs).exceptAll(next(pairs)).select("as_of_date")


def _written_first(kept: Mapping[date, int | None], now: datetime) -> Column:
    written = F.lit(now)
    for as_of, at in kept.items():
        earlier = F.timestamp_micros(F.lit(at).cast("bigint"))
        written = F.when(F.col("as_of_date") == F.lit(as_of), earlier).otherwise(written)
    return written


def _supersede(dates: Dates, fences: Mapping[date, Fence], now: datetime) -> None:
    """Keep what is about to be replaced by other rows, or by more of them; each date once for each of its fences.

    Not those of keys that are being erased: what is replaced may have them still.
    """
    run = dates.any
    lake, name = run.lake, run.pipeline.name
    tables: list[tuple[Table, Callable[[Collection[date]], str]]] = [(scores_table(name), partitions)]
    if lake.has(f"features/{name}"):
        # With all columns that it has: features.sql may not give some of them any more.
        known = lake.read(f"features/{name}").drop("as_of_date").schema
        tables.append((features_table(name, known), of_dates))
    for table, where in tables:
        kept = superseded(table)
        lake.create(kept)
        marks = {f"{fence.app_id}/{fence.version - 1}": as_of for as_of, fence in fences.items()}
        fresh = [fence for fence in lake.fences(kept.name, marks) if fence.version == 0]
        if fresh:
            # After the fences: of an erasure that begins later they know.
            erased = Tombstones(run.settings).at_work(run.pipeline)
            rows = lake.read(table.name).where(where([marks[fence.app_id] for fence in fresh]))
            rows = rows if erased is None else rows.where(~erased.is_in(F.col("key")))
            lake.append(rows.withColumn("superseded_at", F.lit(now)).select(*kept.names), kept.name, *fresh)
