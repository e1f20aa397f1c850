"""Publish: a generation of packed blocks, read back and compared with the table, then the swap of the head."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from typing import Literal

from deltalake.exceptions import DeltaError

from jobs.erasure.tombstones import Tombstones
from jobs.errors import GenerationDiffers, Overtaken, RailsBreached
from jobs.publication.ledger import BREACH, DIFFERS, HISTORY, LIVE, NO_GENERATION, Entry, Ledger
from jobs.publication.partition import Partition, build, partition_behind, partition_of
from jobs.publication.prior import fallback_of
from jobs.publication.rails import findings
from jobs.publication.retention import Retention
from jobs.publication.standing import Standing
from jobs.quality import Measure, count
from jobs.run import CHAMPION, Run
from jobs.tables import publications_table
from serving.clock import instant, microseconds
from serving.errors import HeadUnreadable, ServingError, TornGeneration
from serving.head import Head, Model
from serving.layout import Layout
from serving.refusals import Refusal, RefusalStore, Verdict
from serving.store import Outcome, Store

LOG = logging.getLogger(__name__)
NEEDLESS = "nothing to do"
AGAIN = "Run the task again: it decides anew which of the two is newer"
REFUSED: dict[Outcome, str] = {
    "older": f"another generation went live meanwhile, of a newer as_of. {AGAIN}",
    "epoch": f"a rollback or a forced publication came in between. {AGAIN}",
    "moved": f"a rollback or another publication came in between. {AGAIN}",
    "unclaimed": f"another publication began meanwhile, or Redis was emptied. {AGAIN}",
    "removed": f"its blocks were removed meanwhile. {AGAIN}",
    "unreadable": "what is live has a head that cannot be read by now. `scoreline republish` replaces that",
}


@dataclass(frozen=True)
class Warrant:
    """By what right scores go live: "due" in their order and within the rails; the others whatever these say.

    "republished" brings back `lost`, a head that went live before: the rows that its generation was made of.
    "withheld" are those that are to go live by no means.
    """

    kind: Literal["due", "forced", "republished", "withheld"] = "due"
    reason: str = ""
    lost: Head | None = None

    @property
    def note(self) -> str:
        """What goes on record."""
        return self.reason if self.kind == "due" else f"{self.kind}: {self.reason}"


DUE = Warrant()


def warrant(wish: str, reason: str) -> Warrant:
    """Return by what right a run's scores go live, as its parameter `publish` (newest, no, force) says, and why."""
    if wish == "newest":
        return Warrant("due", reason)
    return Warrant("forced", reason) if wish == "force" else Warrant("withheld", reason or "its run was told so")


def publish(run: Run, redis_url: str, warrant: Warrant = DUE) -> str:
    """Publish the run's scores and return the verdict.

    "live"; "history only" where a newer as_of is live, or they are withheld; "nothing to do" where what is to be
    brought back is no more what Redis has lost.

    Raises:
        NothingToPublish: the run's date has no scores, or not any more those of the generation to be brought back.
        RailsBreached: they are further from what went live last than the pipeline's rails allow.
        GenerationDiffers: what Redis holds is not what the table holds. What was live stays live.
        SqlRefused: the expression of the fallback's segments is refused.
        Overtaken: another generation went live meanwhile.
        Fenced: others took every token that was tried.
        HeadUnreadable: what is live has a head that nobody can put in order.
        ServingError: Redis is away, full, or may evict what it holds.
    """
    known = Tombstones(run.settings).version  # before the rows are read
    found = partition_of(run) if warrant.lost is None else partition_behind(run.lake, warrant.lost)
    partition = replace(found, tombstones=known)
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
        """Go live, unless what is live or went live last is newer; return the verdict."""
        name = self.run.pipeline.name
        if verdict := self._idle(Standing.seen(self.store, self.ledger, name)):
            return verdict
        entry = self._reserved()
        # From here on nobody who came earlier can go live, so that what is observed now holds until the swap.
        self._claim(entry.token)
        standing = Standing.observed(self.store, self.ledger, name)
        if verdict := self._idle(standing):
            return verdict
        retention = Retention(self.run.pipeline, self.store, self.ledger)
        retention.free(standing.history, entry.token)
        self.store.register(self.run.pipeline.name)  # where a full Redis has room for it, before the blocks take that
        rails = self._railed(entry, standing.before)
        head = self._built(entry, standing)
        self._go_live(head, standing)
        removed = 0
        with self._clean_up():
            removed = retention.sweep(head, standing.live)
        self._record(LIVE, entry, [*rails, count("generations removed", removed)])
        return LIVE

    def _idle(self, standing: Standing) -> str | None:
        """Return the verdict where nothing is to go live, and put on record why; else None."""
        if self.warrant.lost is not None:
            return None if self.warrant.lost == standing.lost else NEEDLESS
        if self.warrant.kind == "withheld":
            return self._history(self.warrant.note)
        if not self.in_order:
            return None
        if standing.fault:
            name, day = self.run.pipeline.name, self.run.as_of.date()
            raise HeadUnreadable(f"{name}: whether what is live is newer than {day}, nobody can tell: {standing.fault}")
        newer = standing.newer_than(microseconds(self.run.as_of))
        return None if newer is None else self._history_only(newer, is_live=newer == standing.live)

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
        # An erasure writes its tombstone and then takes the claim: who has it after that must not have read before.
        if Tombstones(self.run.settings).version != self.partition.tombstones:
            raise Overtaken(f"{name}: a key was erased while the scores were read. Run the task again")

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
            f"`scoreline publish {name} --day {day} --publish force --reason WHY`"
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
            fallback=self.warrant.lost.fallback if self.warrant.lost else fallback_of(run, self.partition.scores),
        )
        place = standing.apart if self.warrant.kind == "forced" else standing.placed
        return place(head, run.pipeline)

    def _go_live(self, head: Head, standing: Standing) -> None:
        def swap() -> Outcome:
            if self.in_order:
                return self.store.swap(head, standing.live)
            return self.store.replace_claimed(standing.record, head)

        try:
            outcome = self.ledger.go_live(Entry.of(head, self.warrant.note), swap)
        except TornGeneration as fault:
            raise self._overtaken(head, f"{REFUSED['unclaimed']} ({fault})") from fault
        if outcome != "live":
            raise self._overtaken(head, REFUSED[outcome])
        if standing.before is not None and standing.before.overtakes(head.as_of):
            self._tell(instant(standing.before.as_of).date(), "rolled back", self.warrant.note)
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
        return Overtaken(f"{head.pipeline}: generation {head.token} did not go live: {why}")

    def _discard(self, head: Head) -> None:
        """Free what a generation takes that will not go live; what stays, the next publication finds."""
        with suppress(ServingError):
            self.store.remove_generation(head.pipeline, head.token, range(head.layout.buckets))

    def _history_only(self, newer: Head, *, is_live: bool) -> str:
        lost = f"went live last; Redis has lost it, and `scoreline republish {newer.pipeline}` brings it back"
        what = f"generation {newer.token} as of {instant(newer.as_of):%Y-%m-%d}"
        asked = f"; it was run for: {self.warrant.reason}" if self.warrant.reason else ""
        return self._history(f"{what} is newer and {'stays live' if is_live else lost}{asked}")

    def _history(self, note: str) -> str:
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
            raise Overtaken(f"{name}: generation {token} was given up: {REFUSED['unclaimed']}")

    def _tell(self, as_of: date, verdict: Verdict, reason: str) -> None:
        """Say beside the head why a date is not live."""
        with suppress(ServingError):  # it is on record, and a full Redis must not fail a run that fills history
            self.store.register(self.run.pipeline.name)
            self.refusals.put(as_of, Refusal(verdict, reason, microseconds(self.run.clock.now())))

    def _record(self, verdict: str, entry: Entry, measures: list[Measure]) -> None:
        published = Measure("", "verdict", "", verdict in (LIVE, HISTORY), f"{verdict} {entry.note}".strip())
        self.run.record("publish", [published, count("generation", entry.token), *measures])
