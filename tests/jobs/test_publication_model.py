"""Publications, zombies, rollbacks, fresher values and an emptied Redis, in any order, against plain sets.

All that decides is real: publication, standing, ledger, clean-up and rollback. Only what Spark does is done by arrays.
"""

import shutil
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count
from typing import Any, ClassVar, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from jobs.errors import RollbackRefused
from jobs.publication.publish import DUE, Warrant
from jobs.publication.rollback import Wish, roll_back
from jobs.run import as_of_day
from jobs.spec.publication import Rails
from serving.clock import microseconds
from serving.keys import overlay_key
from serving.overlay import EntryCodec, Fresh, OverlayStore
from serving.store import Store
from tests.jobs.attempts import Attempt, Leaping, Quiet, build
from tests.jobs.expected import Answer, Model, Turn
from tests.jobs.populations import DAY
from tests.jobs.sites import NAME, Site
from tests.project import Project
from tests.serving.publishing import raw

KEYS = ["a", "b", "c", "d"]
SCORES = st.dictionaries(st.sampled_from(KEYS), st.sampled_from([0.25, 0.5, 0.75]), min_size=1)
HOURS = 3_600_000_000
FORCED = Warrant("forced", "it is urgent")
NUMBER = count()


@dataclass(eq=False)
class Begun:
    """An attempt as the model knows it: what went live last, and what was live, when it had its claim."""

    attempt: Attempt
    as_of: int
    before: Turn | None = None
    seen: Turn | None = None

    @property
    def token(self) -> int:
        return self.attempt.token

    @property
    def forced(self) -> bool:
        return self.attempt.warrant is FORCED

    @property
    def turn(self) -> Turn:
        """The turn that it wants."""
        if self.before is None:
            return Turn(1, self.as_of, self.token)
        anew = self.forced or self.before.as_of > self.as_of
        return Turn(self.before.epoch + anew, self.as_of, self.token)


def answer(store: Store, key: str) -> Answer:
    """Return as_of and score of a key as a reader of Redis finds them."""
    head = store.head(NAME)
    if head is None:
        return None
    assert head.overlay
    spread, hashed = head.overlay.spread, head.layout.hash_of(key)
    entry = store.ask("HGET", overlay_key(NAME, head.epoch, spread.bucket_of(spread.hash_of(key))), key)
    if entry:
        as_of, (fresh,) = EntryCodec(head.layout).unpack(entry)
        if as_of > head.as_of:
            return as_of, float(fresh)
    ((_, block),) = store.read_blocks(NAME, head.token, [head.layout.bucket_of(hashed)])
    found = head.layout.finder(head.token)(block, hashed)
    return None if found is None else (head.as_of, float(found[0]))


class Publications(RuleBasedStateMachine):
    """The state machine; `given` has a real Redis, and a ledger to copy."""

    given: ClassVar[tuple[Site, Project]]

    @initialize(keep=st.sampled_from([1, 3]))
    def begin(self, keep: int) -> None:
        site, project = self.given
        site = site.declaring(keep=keep)
        own = project.folder / f"lake-{next(NUMBER)}"
        shutil.copytree(project.settings.lake, own)
        clock, ledger = Leaping(), str(own / site.ledger.name)
        self.site = replace(site, ledger=replace(site.ledger, path=ledger, clock=clock))
        told = project.settings.model_copy(update={"lake": str(own)})
        self.run = Quiet(site.pipeline, DAY, "run", cast("Any", None), told, clock)
        self.model, self.tokens, self.begun = Model(keep), count(1), list[Begun]()
        raw(site.store).flushdb()

    @rule(
        scores=SCORES,
        days=st.sampled_from([1, 0, -1]),
        forced=st.sampled_from([False, False, True]),
        gates=st.sampled_from([4, 0, 1, 2, 3]),
    )
    def start(self, scores: dict[str, float], days: int, *, forced: bool, gates: int) -> None:
        """A publication begins, of a day that is older or newer than what is live, and comes as far as some gate."""
        live = self.model.live
        run = replace(self.run, day=self._day() + timedelta(days=days if live else max(0, days)))
        as_of = microseconds(run.as_of)
        attempt = Attempt(run, self.site.store.url, scores, FORCED if forced else DUE)
        if live and live.as_of > as_of and not forced:
            assert (attempt.at, attempt.said) == (None, "history only")
            return
        assert (attempt.at, attempt.token) == ("before the claim", next(self.tokens))
        self.model.scores[attempt.token] = scores
        self.begun.append(Begun(attempt, as_of))
        self._let_go_on(self.begun[-1], gates)

    @precondition(lambda self: self.begun)
    @rule(which=st.integers(0, 5), gates=st.sampled_from([4, 1, 2, 3]))
    def go_on(self, which: int, gates: int) -> None:
        """One of those that have begun goes on, be it hours later."""
        self._let_go_on(self.begun[which % len(self.begun)], gates)

    def _let_go_on(self, begun: Begun, gates: int) -> None:
        for _ in range(gates):
            if begun.attempt.at:
                gate = begun.attempt.at.replace(" ", "_")
                begun.attempt.go_on()
                getattr(self, f"_{gate}")(begun)
        if begun.attempt.at is None:
            self.begun.remove(begun)

    @precondition(lambda self: self.begun)
    @rule(which=st.integers(0, 5))
    def kill(self, which: int) -> None:
        """One of them dies where it is."""
        begun = self.begun.pop(which % len(self.begun))
        begun.attempt.kill()
        assert begun.attempt.said == "killed"

    @rule()
    def roll_back(self) -> None:
        """An operator makes the generation before live again."""
        last, wanted = self.model.admit(), self.model.before()
        if wanted is None:
            with pytest.raises(RollbackRefused):
                roll_back(self.run.pipeline, self.site.store, self.site.ledger, Wish())
            return
        assert last
        roll_back(self.run.pipeline, self.site.store, self.site.ledger, Wish())
        self.model.live = replace(wanted, epoch=last.epoch + 1)
        self.model.admit()

    @precondition(lambda self: self.model.live)
    @rule(key=st.sampled_from(KEYS), later=st.integers(-2, 3), score=st.sampled_from([1.0, 2.0]))
    def freshen(self, key: str, later: int, score: float) -> None:
        """A micro-batch writes a value, newer or older than what is known."""
        head, live = self.site.store.head(NAME), self.model.live
        assert head
        assert live
        as_of, known = live.as_of + later * 12 * HOURS, self.model.overlay.setdefault(live.epoch, {})
        OverlayStore(self.site.store).write(head, [Fresh(key, as_of, (score,))])
        if key not in known or known[key][0] < as_of:
            known[key] = (as_of, score)

    @precondition(lambda self: len(self.model.turns) % 4 == 3)  # else most runs would be short
    @rule()
    def erase(self) -> None:
        """Redis loses everything; the ledger does not."""
        raw(self.site.store).flushdb()
        self.model.live, self.model.claim = None, 0
        self.model.there.clear()
        self.model.overlay.clear()

    @invariant()
    def redis_has_what_the_model_says(self) -> None:
        assert {key: answer(self.site.store, key) for key in KEYS} == {key: self.model.answer(key) for key in KEYS}
        assert set(self.site.there()) == self.model.there

    @invariant()
    def the_ledger_has_what_the_model_says(self) -> None:
        history = self.site.ledger.read()
        assert {Turn(*turn.order) for turn in history.turns} == self.model.turns
        assert {one.token for one in history.generations if one.removed} == self.model.removed

    def teardown(self) -> None:
        for begun in self.begun:
            begun.attempt.kill()
        shutil.rmtree(self.run.settings.lake)

    def _day(self) -> Any:
        """Return the day of what is live, or went live last."""
        last = self.model.live or max(self.model.turns, default=None)
        return DAY + timedelta(microseconds=last.as_of - microseconds(as_of_day(DAY))) if last else DAY

    def _before_the_claim(self, begun: Begun) -> None:
        model, attempt = self.model, begun.attempt
        if model.claim > begun.token:
            assert (attempt.at, attempt.said) == (None, "overtaken")
            return
        model.claim = begun.token
        begun.before, begun.seen = model.admit(), model.live
        if attempt.at is None:  # it may say so at once, as its swap would
            assert attempt.said == "history only"
            assert not begun.forced
            assert begun.before
            assert begun.before.as_of > begun.as_of
            return
        model.free(begun.token)
        assert attempt.at == "before the blocks"

    def _before_the_blocks(self, begun: Begun) -> None:
        assert begun.attempt.at == "before the swap"
        self.model.there.add(begun.token)

    def _before_the_swap(self, begun: Begun) -> None:
        model, attempt, seen = self.model, begun.attempt, begun.seen
        in_order = begun.forced or seen is None or seen.as_of <= begun.as_of
        if model.claim == begun.token and model.live == seen and in_order:
            assert attempt.at == "after the swap"
            model.live = begun.turn
            return
        assert (attempt.at, attempt.said) == (None, "overtaken")
        model.there.discard(begun.token)

    def _after_the_swap(self, begun: Begun) -> None:
        assert (begun.attempt.at, begun.attempt.said) == (None, "live")
        self.model.turns.add(begun.turn)
        self.model.sweep({begun.token, *([begun.seen.token] if begun.seen else [])})


@pytest.mark.parametrize("examples", [20, pytest.param(500, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])])
def test_any_order_of_events_ends_as_the_model_says(
    site: Site, project: Project, examples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.publication.publish.build", build)
    loose = Rails.model_validate({"fall": 1, "rise": 10})
    declaring = site.declaring(keys_per_block=1, rails=loose).pipeline
    unhurried = declaring.schedule.model_copy(update={"timeout_minutes": 10**6})
    pipeline = declaring.model_copy(update={"fallback": None, "schedule": unhurried})
    quick = settings(
        max_examples=examples, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    given = (replace(site, pipeline=pipeline), project)
    run_state_machine_as_test(type("OnRedis", (Publications,), {"given": given}), settings=quick)
