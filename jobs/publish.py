"""Publish: a generation of packed blocks, read back and compared with the table, then the swap of the head."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from typing import Literal

from deltalake.exceptions import DeltaError

from jobs import generation as blocks
from jobs.errors import GenerationDiffers, Overtaken, RailsBreached
from jobs.generation import Generation
from jobs.ledger import BREACH, DIFFERS, HISTORY, LIVE, NO_GENERATION, Entry, Ledger
from jobs.partition import Partition, partition_of
from jobs.prior import fallback_of
from jobs.quality import Measure, count
from jobs.rails import findings
from jobs.retention import Retention
from jobs.run import CHAMPION, Run
from jobs.standing import Standing
from jobs.tables import publications_table
from serving.blocks import Tally
from serving.clock import instant, microseconds
from serving.errors import BlockCorrupt, HashCollision, ServingError, TornGeneration
from serving.head import Head, Model
from serving.layout import Layout
from serving.refusals import Refusal, RefusalStore, Verdict
from serving.store import Outcome, Store

LOG = logging.getLogger(__name__)
SALTS = 8
REFUSED: dict[Outcome, str] = {
    "older": "another generation went live meanwhile, of a newer as_of",
    "epoch": "a rollback or a forced publication came in between",
    "moved": "a rollback or another publication came in between",
    "unclaimed": "another publication began meanwhile, or Redis was emptied",
    "removed": "its blocks were removed meanwhile",
    "unreadable": "what is live has a head that cannot be read",
}


@dataclass(frozen=True)
class Warrant:
    """By what right scores go live: "due" in their order and within the rails; the others whatever these say."""

    kind: Literal["due", "forced", "republished"] = "due"
    reason: str = ""

    @property
    def note(self) -> str:
        """What goes on record."""
        return "" if self.kind == "due" else f"{self.kind}: {self.reason}"


DUE = Warrant()


def publish(run: Run, redis_url: str, warrant: Warrant = DUE) -> str:
    """Publish the run's scores and return the verdict: "live", or "history only" where a newer as_of is live.

    Raises:
        NothingToPublish: the run's date has no scores.
        RailsBreached: they are further from what went live last than the pipeline's rails allow.
        GenerationDiffers: what Redis holds is not what the table holds. What was live stays live.
        SqlRefused: the expression of the fallback's segments is refused.
        Overtaken: another generation went live meanwhile.
        Fenced: others took every token that was tried.
        ServingError: Redis is away, full, or may evict what it holds.
    """
    partition = partition_of(run)
    run.lake.create(publications_table(run.pipeline.name))
    with Store(redis_url) as store:
        store.require_noeviction()
        return _Publication(run, store, partition, warrant).verdict()


@dataclass(frozen=True)
class _Publication:
    """One attempt to let the scores of a partition go live."""

    run: Run
    store: Store
    partition: Partition
    warrant: Warrant

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger.of(self.run.settings, self.run.pipeline.name, self.run.clock)

    @cached_property
    def refusals(self) -> RefusalStore:
        return RefusalStore(self.store, self.run.pipeline.name)

    @property
    def in_order(self) -> bool:
        return self.warrant.kind == "due"

    def verdict(self) -> str:
        """Go live, unless what is live is newer; return the verdict."""
        live = self.store.head(self.run.pipeline.name) if self.in_order else None
        if live is not None and live.overtakes(microseconds(self.run.as_of)):
            return self._history_only(live)
        entry = self._reserved()
        # From here on nobody who came earlier can go live, so that what is observed now holds until the swap.
        self._claim(entry.token)
        standing = Standing.observed(self.store, self.ledger, self.run.pipeline.name)
        retention = Retention(self.run.pipeline, self.store, self.ledger)
        retention.free(standing.history, entry.token)
        rails = self._railed(entry, standing.before)
        head = self._built(entry, standing)
        self._go_live(head, standing)
        removed = 0
        with self._clean_up():
            self.refusals.clear(self.run.as_of.date())
            removed = retention.sweep(head, standing.live)
        self._record(LIVE, entry, [*rails, count("generations removed", removed)])
        return LIVE

    def _reserved(self) -> Entry:
        rows = self.partition.tally.rows
        buckets = Layout.fitting(rows, self.run.pipeline.publication.keys_per_block).buckets
        note = self.warrant.note
        wanted = Entry(as_of=self.run.as_of, run_id=self.run.run_id, rows=rows, buckets=buckets, note=note)
        return self.ledger.reserve(wanted, above=self.store.highest_token(self.run.pipeline.name))

    def _claim(self, token: int) -> None:
        name = self.run.pipeline.name
        if not self.store.claim(name, token):
            raise Overtaken(f"{name}: a later publication began before generation {token}. Run the task again")

    def _railed(self, entry: Entry, before: Head | None) -> list[Measure]:
        """Return what the rails found; raise `RailsBreached` where one does not hold."""
        if not self.in_order:
            return []
        found = findings(self.run.pipeline.publication.rails, self.partition, before, self.run.lake)
        measures, broken = [one.measure for one in found], "; ".join(str(one) for one in found if not one.held)
        if broken:
            self._refuse(BREACH, replace(entry, note=broken), measures)
            raise RailsBreached(self._breach(broken))
        return measures

    def _breach(self, broken: str) -> str:
        name, day = self.run.pipeline.name, self.run.day
        return (
            f"{name}: the scores as of {self.run.as_of.date()} break the rails and did not go live: {broken}. Mend the "
            f"data and score again, change publication.rails in {name}.yaml, or let them go live all the same: "
            f"`scoreline publish {name} --day {day} --force REASON`"
        )

    def _built(self, entry: Entry, standing: Standing) -> Head:
        """Return the head of a generation that is whole in Redis; else remove what was written of it."""
        draft = self._draft(entry, standing)
        try:
            return build(self.partition, draft, self.store.url)
        except Exception as fault:
            self._discard(draft)
            if isinstance(fault, GenerationDiffers):
                self._refuse(DIFFERS, replace(entry, note=str(fault)), [])
            raise

    def _draft(self, entry: Entry, standing: Standing) -> Head:
        origin, run = self.partition.origin, self.run
        head = Head(
            pipeline=run.pipeline.name,
            token=entry.token,
            as_of=microseconds(run.as_of),
            arms=(CHAMPION,),
            model=Model(origin.model_name, origin.model_version, origin.model_digest),
            rows=entry.rows,
            checksum=0,
            layout=Layout(buckets=entry.buckets),
            events_version=origin.events_version,
            run_id=run.run_id,
            published_at=microseconds(run.clock.now()),
            fallback=fallback_of(run, self.partition.scores),
        )
        overlay, anew = run.pipeline.publication.overlay, self.warrant.kind == "forced"
        return standing.placed(head, overlay=overlay, anew=anew)

    def _go_live(self, head: Head, standing: Standing) -> None:
        def swap() -> Outcome:
            if self.in_order:
                return self.store.swap(head, standing.live)
            return self.store.replace_claimed(standing.record, head)

        self.store.register(head.pipeline)
        try:
            outcome = self.ledger.go_live(Entry.of(head, self.warrant.note), swap)
        except TornGeneration as fault:
            raise self._overtaken(head, f"{REFUSED['unclaimed']} ({fault})") from fault
        if outcome != "live":
            raise self._overtaken(head, REFUSED[outcome])
        if standing.live is not None and standing.live.overtakes(head.as_of):
            self._tell(instant(standing.live.as_of).date(), "rolled back", self.warrant.note)
        LOG.info("generation %d is live: %d scores", head.token, head.rows)

    @contextmanager
    def _clean_up(self) -> Iterator[None]:
        """Let no fault of what comes after the swap fail the run: its retry would publish all of it again."""
        try:
            yield
        except (ServingError, DeltaError, OSError) as fault:
            LOG.warning("it is live, and not all is cleaned up: what is old goes with the next one: %s", fault)

    def _overtaken(self, head: Head, why: str) -> Overtaken:
        self._discard(head)
        return Overtaken(
            f"{head.pipeline}: generation {head.token} did not go live: {why}. Run the task again: it decides anew "
            "which of the two is newer"
        )

    def _discard(self, head: Head) -> None:
        """Free what a generation takes that will not go live; what stays, the next publication finds."""
        with suppress(ServingError):
            self.store.remove_generation(head.pipeline, head.token, range(head.layout.buckets))

    def _history_only(self, live: Head) -> str:
        note = f"generation {live.token} as of {instant(live.as_of):%Y-%m-%d} is newer and stays live"
        rows = self.partition.tally.rows
        self._refuse(HISTORY, Entry(as_of=self.run.as_of, run_id=self.run.run_id, rows=rows, note=note), [])
        return HISTORY

    def _refuse(self, verdict: Verdict, entry: Entry, measures: list[Measure]) -> None:
        """Put on record, and beside the head, why the scores do not go live."""
        self._require_claim(entry)
        LOG.info("as of %s: %s, %s", self.run.as_of.date(), verdict, entry.note)
        self.ledger.write([(verdict, entry)])
        self._record(verdict, entry, measures)
        self._tell(self.run.as_of.date(), verdict, entry.note)

    def _require_claim(self, entry: Entry) -> None:
        """Raise `Overtaken` where another publication has begun since: it speaks for the date, and freed the blocks."""
        name, token = self.run.pipeline.name, entry.token
        if token != NO_GENERATION and self.store.highest_token(name) != token:
            raise Overtaken(f"{name}: generation {token} was given up: {REFUSED['unclaimed']}. Run the task again")

    def _tell(self, as_of: date, verdict: Verdict, reason: str) -> None:
        """Say beside the head why a date is not live."""
        with suppress(ServingError):  # it is on record, and a full Redis must not fail a run that fills history
            self.refusals.put(as_of, Refusal(verdict, reason, microseconds(self.run.clock.now())))

    def _record(self, verdict: str, entry: Entry, measures: list[Measure]) -> None:
        published = Measure("", "verdict", "", verdict in (LIVE, HISTORY), f"{verdict} {entry.note}".strip())
        self.run.record("publish", [published, count("generation", entry.token), *measures])


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
