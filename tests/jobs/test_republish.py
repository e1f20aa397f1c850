"""Republish: what went live last comes back, whatever was scored, refused or rolled back since."""

from dataclasses import replace
from datetime import date, timedelta

import pytest

from jobs.errors import NothingToPublish, RailsBreached
from jobs.publication.ledger import Entry, Ledger
from jobs.publication.publish import Warrant, publish
from jobs.publication.rollback import Wish, roll_back
from jobs.publication.standing import Standing
from jobs.run import Run
from serving.errors import HeadUnreadable
from serving.head import Head
from serving.keys import head_key
from serving.refusals import RefusalStore
from serving.store import Store
from tests.jobs.populations import DAY, NAME, at, numbered, put, supersede
from tests.project import Project

ROWS = 1000
NEXT = DAY + timedelta(days=1)


def ledger(project: Project) -> Ledger:
    return Ledger.of(project.settings, NAME, at(project.run(DAY)).clock)


def live(store: Store) -> Head:
    head = store.head(NAME)
    assert head is not None
    return head


def lost(project: Project, store: Store) -> Head:
    """Empty Redis, and return what it has lost."""
    store.ask("FLUSHDB")
    head = Standing.seen(store, ledger(project), NAME).lost
    assert head is not None
    return head


def republished(run: Run, store: Store, lost: Head) -> str:
    return publish(at(run, 60), store.url, Warrant("republished", "Redis had lost it", lost))


def rescored(project: Project, day: date, rows: int, score: str) -> Run:
    """Score a day again, by version 2 of the model."""
    supersede(project, day)
    return at(put(project, day, numbered(project, rows, score), version="2"), 1)


def same(one: Head, other: Head) -> bool:
    """Return whether two heads say the same of other generations."""
    return replace(one, token=1, run_id="", published_at=0) == replace(other, token=1, run_id="", published_at=0)


def test_scores_that_were_refused_do_not_go_live(project: Project, store: Store) -> None:
    """The date was scored again since, in the partition that a publication would take."""
    run = at(put(project, DAY, numbered(project, ROWS)))
    assert publish(run, store.url) == "live"
    before = live(store)
    with pytest.raises(RailsBreached):
        publish(rescored(project, DAY, ROWS // 10, "0.5"), store.url)
    assert republished(run, store, lost(project, store)) == "live"
    assert same(live(store), before)
    assert live(store).model.version == "1"


def test_scores_that_were_rolled_back_do_not_go_live(project: Project, store: Store) -> None:
    run = at(put(project, DAY, numbered(project, ROWS)))
    assert publish(run, store.url) == "live"
    assert publish(rescored(project, DAY, ROWS, "0.5"), store.url) == "live"
    before = roll_back(run.pipeline, store, ledger(project), Wish(reason="it was bad"))
    assert republished(run, store, lost(project, store)) == "live"
    assert same(live(store), before)


def test_without_the_rows_it_was_made_of_nothing_comes_back(project: Project, store: Store) -> None:
    run = at(put(project, DAY, numbered(project, ROWS)))
    assert publish(run, store.url) == "live"
    put(project, DAY, numbered(project, ROWS, "0.5"))
    words = r"no more what generation 1 as of 1998-06-02 was made of.* --day 1998-06-01 --publish force --reason"
    with pytest.raises(NothingToPublish, match=words):
        republished(run, store, lost(project, store))
    assert store.record(NAME) is None


def test_what_went_live_since_redis_was_emptied_stays(project: Project, store: Store) -> None:
    """The next day's publication was faster than the Spark of the one that brings back."""
    run = at(put(project, DAY, numbered(project, ROWS)))
    assert publish(run, store.url) == "live"
    before = lost(project, store)
    assert publish(at(put(project, NEXT, numbered(project, ROWS)), 1), store.url) == "live"
    after = store.record(NAME)
    assert republished(run, store, before) == "nothing to do"
    assert store.record(NAME) == after


def test_an_older_date_is_history_only_while_a_newer_one_is_lost(project: Project, store: Store) -> None:
    """Else a backfill's next day would count as what went live last, and nothing would bring the newer one back."""
    older, run = at(put(project, DAY, numbered(project, ROWS))), at(put(project, NEXT, numbered(project, ROWS)))
    assert publish(run, store.url) == "live"
    before = lost(project, store)
    assert publish(older, store.url) == "history only"
    assert store.record(NAME) is None
    reason = RefusalStore(store, NAME).read()[older.as_of.date()].reason
    assert reason == (
        "generation 1 as of 1998-06-03 is newer and went live last; Redis has lost it, and "
        "`scoreline republish purchase_propensity` brings it back"
    )
    assert republished(run, store, before) == "live"
    assert same(live(store), before)


def test_the_same_date_goes_live_again_by_itself(project: Project, store: Store) -> None:
    run = at(put(project, DAY, numbered(project, ROWS)))
    assert publish(run, store.url) == "live"
    before = lost(project, store)
    assert publish(at(run, 1), store.url) == "live"
    assert same(live(store), before)


def test_a_head_that_cannot_be_read_is_replaced_beside_a_generation_that_was_given_up(
    project: Project, store: Store
) -> None:
    run = at(put(project, DAY, numbered(project, ROWS)))
    assert publish(run, store.url) == "live"
    before = live(store)
    ledger(project).reserve(Entry.of(before), above=0)
    store.ask("SET", head_key(NAME), "no record")
    with pytest.raises(HeadUnreadable, match="or replace it by `scoreline republish`"):
        publish(run, store.url)
    assert republished(run, store, before) == "live"
    assert same(live(store), before)
