"""The partition of the scores table that a generation is made of, and the making of it."""

import logging
from dataclasses import astuple, dataclass, replace
from datetime import timedelta

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from jobs.erasure.tombstones import NONE, Tombstones
from jobs.errors import GenerationDiffers, NothingToPublish
from jobs.lake import Lake
from jobs.publication import generation as blocks
from jobs.publication.generation import Generation
from jobs.run import CHAMPION, Run
from serving.blocks import Tally
from serving.clock import instant
from serving.errors import BlockCorrupt, HashCollision, TornGeneration
from serving.head import Head
from serving.layout import Layout

LOG = logging.getLogger(__name__)
SALTS = 8
FINITE = "coalesce(abs(score) < float('Infinity'), false)"
ORIGIN = ("model_name", "model_version", "model_digest", "events_version")


@dataclass(frozen=True)
class Partition:
    """The rows (key, score) of a date that have a score, what all of them carry, and their tally under salt 0.

    `nulls` counts the rows that have none: a generation leaves them out. The rows are those of one version of the
    table, whoever scores meanwhile.
    """

    scores: DataFrame
    origin: Row
    tally: Tally
    nulls: int
    tombstones: int = NONE  # their version, before the rows were read

    def tally_under(self, layout: Layout) -> Tally:
        """Return the tally under the hash of `layout`, which blocks read back must have."""
        return self.tally if layout.salt == 0 else blocks.expected(self.scores, layout)


def partition_of(run: Run) -> Partition:
    """Return the partition of the run's date, or raise `NothingToPublish`."""
    name = f"scores/{run.pipeline.name}"
    remedy = f"run `scoreline score {run.pipeline.name} --day {run.day}` first"
    if not run.lake.has(name):
        raise NothingToPublish(f"{name} has no scores as of {run.as_of.date()}; {remedy}")
    erased = Tombstones(run.settings).at_work(run.pipeline)
    rows = run.lake.read_version(name, run.lake.version(name)).where(run.partition)
    rows = rows if erased is None else rows.where(~erased.is_in(F.col("key")))
    found = rows.agg(F.count("*").alias("all"), F.count_if(F.expr(FINITE)).alias("finite"), F.min(F.struct(*ORIGIN)))
    total, finite, origin = found.collect()[0]
    if not finite:
        raise NothingToPublish(f"{name} has no scores as of {run.as_of.date()} ({total} rows without); {remedy}")
    scores = rows.where(FINITE).select("key", "score")
    return Partition(scores, origin, blocks.expected(scores, Layout.fitting(1, 1)), total - finite)


def partition_behind(lake: Lake, head: Head) -> Partition:
    """Return the partition that the generation of `head` was made of, or raise `NothingToPublish`."""
    scores, name, as_of = rows_of(lake, head), head.pipeline, instant(head.as_of).date()
    if scores is None:
        raise NothingToPublish(
            f"scores/{name} has no more what generation {head.token} as of {as_of} was made of. To let go live what it "
            f"has now: `scoreline publish {name} --day {as_of - timedelta(days=1)} --publish force --reason WHY`"
        )
    origin = Row(**dict(zip(ORIGIN, (*astuple(head.model), head.events_version), strict=True)))
    return Partition(scores, origin, blocks.expected(scores, Layout.fitting(1, 1)), nulls=0)


def rows_of(lake: Lake, head: Head) -> DataFrame | None:
    """Return the rows (key, score) that the generation of `head` was made of, or None where the lake has them no more.

    They are the date's partition, unless the date was scored again since: then a part of what that superseded.
    """
    where = f"as_of_date = DATE'{instant(head.as_of).date()}' AND arm = '{CHAMPION}' AND {FINITE}"
    name, superseded = f"scores/{head.pipeline}", f"scores_superseded/{head.pipeline}"
    candidates = [lake.read_version(name, lake.version(name)).where(where)] if lake.has(name) else []
    if lake.has(superseded):
        before = lake.read(superseded).where(where)
        times = before.selectExpr("unix_micros(superseded_at) AS at").distinct().orderBy(F.desc("at")).collect()
        candidates += [before.where(f"unix_micros(superseded_at) = {time['at']}") for time in times]
    made = Tally(head.rows, head.checksum)
    scores = (one.select("key", "score") for one in candidates)
    return next((rows for rows in scores if blocks.expected(rows, head.layout) == made), None)


def build(partition: Partition, draft: Head, redis_url: str) -> Head:
    """Write the blocks under the first salt that keeps all keys apart, read them back, and return the head for them."""
    for salt in range(SALTS):
        layout = replace(draft.layout, salt=salt)
        generation = Generation(redis_url, draft.pipeline, draft.token, layout)
        try:
            blocks.write(partition.scores, generation, partition.tally.rows)
        except HashCollision as collision:
            LOG.warning("%s: drawing another salt", collision)
            continue
        return replace(draft, layout=layout, checksum=_verified(partition, generation).checksum)
    raise GenerationDiffers(f"{draft.pipeline}: keys share a hash under each of {SALTS} salts; are the keys unique?")


def _verified(partition: Partition, generation: Generation) -> Tally:
    """Return the tally of the partition, if all blocks that Redis holds have the same."""
    table = partition.tally_under(generation.layout)
    spread = partition.scores.sparkSession.range(generation.layout.buckets)
    try:
        redis = blocks.read_back(spread, generation)
    except (BlockCorrupt, TornGeneration) as fault:
        raise _differs(generation, str(fault)) from fault
    if table != redis:
        raise _differs(
            generation, f"{redis.rows} rows, checksum {redis.checksum}; {table.rows}, {table.checksum} expected"
        )
    LOG.info("generation %d: %d rows read back and equal to the table", generation.token, redis.rows)
    return table


def _differs(generation: Generation, what: str) -> GenerationDiffers:
    return GenerationDiffers(
        f"{generation.pipeline}: generation {generation.token} in Redis is not what the scores table has: {what}. "
        "It did not go live; run the task again"
    )
