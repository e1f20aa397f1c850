"""Publish: a generation of packed blocks, read back and compared with the table, then the swap of the head."""

import logging
from dataclasses import dataclass, replace

from pyspark.sql import DataFrame, Row

from jobs import generation as blocks
from jobs.errors import GenerationDiffers, NothingToPublish, Overtaken
from jobs.generation import Generation
from jobs.ledger import HISTORY, LIVE, NO_GENERATION, REMOVED, Entry, Ledger
from jobs.quality import Measure, count
from jobs.run import CHAMPION, Run
from jobs.tables import publications_table
from serving.blocks import Tally
from serving.clock import instant, microseconds
from serving.errors import BlockCorrupt, HashCollision, TornGeneration
from serving.head import Fallback, Head, Model
from serving.layout import Layout
from serving.store import Outcome, Store

LOG = logging.getLogger(__name__)
SALTS = 8
REFUSED: dict[Outcome, str] = {
    "older": "another generation went live meanwhile, of a newer as_of",
    "epoch": "a rollback or a forced publication came in between",
    "unclaimed": "another publication began meanwhile, or Redis was emptied",
    "unreadable": "what is live has a head that cannot be read",
}


@dataclass(frozen=True)
class Partition:
    """A partition of the scores table: its rows (key, score), what all of them carry, and their tally under salt 0.

    The rows are those of one version of the table, whoever scores meanwhile.
    """

    scores: DataFrame
    origin: Row
    tally: Tally

    def tally_under(self, layout: Layout) -> Tally:
        """Return the tally under the hash of `layout`, which blocks read back must have."""
        return self.tally if layout.salt == 0 else blocks.expected(self.scores, layout)


def publish(run: Run, redis_url: str) -> str:
    """Publish the run's scores and return the verdict: "live", or "history only" where a newer as_of is live.

    Raises:
        NothingToPublish: the run's date has no scores.
        GenerationDiffers: what Redis holds is not what the table holds. What was live stays live.
        Overtaken: another generation went live meanwhile.
        Fenced: others took every token that was tried.
        ServingError: Redis is away, full, or may evict what it holds.
    """
    partition = _partition(run)
    ledger = Ledger(run)
    run.lake.create(publications_table(run.pipeline.name))
    with Store(redis_url) as store:
        store.require_noeviction()
        live = store.head(run.pipeline.name)
        if live is not None and live.overtakes(microseconds(run.as_of)):
            return _history_only(run, ledger, live, partition.tally.rows)
        layout = Layout.fitting(partition.tally.rows, run.pipeline.publication.keys_per_block)
        entry = ledger.reserve(partition.tally.rows, layout.buckets, above=0 if live is None else live.token)
        # From here on nobody who came earlier can go live, so that what is observed now holds until the swap.
        _claim(store, run.pipeline.name, entry.token)
        live = store.head(run.pipeline.name)
        draft = _head(run, partition, live, Generation(redis_url, run.pipeline.name, entry.token, layout))
        head = _built(partition, draft, redis_url)
        _swap(store, head)
        entry = replace(entry, checksum=head.checksum)
        removed = _remove_old(store, ledger, (head, live))
        ledger.write([(LIVE, entry), *((REMOVED, old) for old in removed)])
    _record(run, LIVE, entry, len(removed))
    return LIVE


def _partition(run: Run) -> Partition:
    name = f"scores/{run.pipeline.name}"
    scores = run.lake.read_version(name, run.lake.version(name)).where(run.partition) if run.lake.has(name) else None
    origin = scores.first() if scores is not None else None
    if scores is None or origin is None:
        raise NothingToPublish(
            f"{name} has no scores as of {run.as_of.date()}; "
            f"run `scoreline score {run.pipeline.name} --day {run.day}` first"
        )
    rows = scores.select("key", "score")
    return Partition(rows, origin, blocks.expected(rows, Layout.fitting(1, 1)))


def _head(run: Run, partition: Partition, live: Head | None, generation: Generation) -> Head:
    origin, fallback = partition.origin, run.pipeline.fallback
    model = Model(origin.model_name, origin.model_version, origin.model_digest)
    return Head(
        pipeline=run.pipeline.name,
        token=generation.token,
        epoch=1 if live is None else live.epoch + (live.model != model),
        as_of=microseconds(run.as_of),
        arms=(CHAMPION,),
        model=model,
        rows=partition.tally.rows,
        checksum=0,
        layout=generation.layout,
        events_version=origin.events_version,
        run_id=run.run_id,
        published_at=microseconds(run.clock.now()),
        fallback=None if fallback is None else Fallback(fallback.kind, fallback.score),
    )


def _built(partition: Partition, draft: Head, redis_url: str) -> Head:
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


def _claim(store: Store, pipeline: str, token: int) -> None:
    if not store.claim(pipeline, token):
        raise Overtaken(f"{pipeline}: a later publication began before generation {token}. Run the task again")


def _swap(store: Store, head: Head) -> None:
    store.register(head.pipeline)
    outcome = store.swap(head)
    if outcome != "live":
        raise Overtaken(
            f"{head.pipeline}: generation {head.token} did not go live: {REFUSED[outcome]}. Run the task again: it "
            "decides anew which of the two is newer"
        )
    LOG.info("generation %d is live: %d scores", head.token, head.rows)


def _history_only(run: Run, ledger: Ledger, live: Head, rows: int) -> str:
    note = f"generation {live.token} as of {instant(live.as_of):%Y-%m-%d} is newer and stays live"
    entry = Entry(NO_GENERATION, rows, note=note)
    ledger.write([(HISTORY, entry)])
    LOG.info("as of %s: history only, %s", run.as_of.date(), note)
    _record(run, HISTORY, entry, 0)
    return HISTORY


def _remove_old(store: Store, ledger: Ledger, live: tuple[Head, Head | None]) -> list[Entry]:
    """Remove the generations that nobody can want any more, and return them; what was live until now stays."""
    pipeline = live[0].pipeline
    old = ledger.removable({head.token for head in live if head is not None})
    for entry in old:
        store.remove_generation(pipeline, entry.token, range(entry.buckets))
    return old


def _record(run: Run, verdict: str, entry: Entry, removed: int) -> None:
    published = Measure("", "verdict", "", success=True, observed=f"{verdict} {entry.note}".strip())
    run.record("publish", [published, count("generation", entry.token), count("generations removed", removed)])
