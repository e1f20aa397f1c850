"""Rollback: back at once, ever further back, only to what is whole, and on record."""

from dataclasses import replace
from datetime import date
from shutil import rmtree

import pytest

from jobs.errors import RollbackRefused
from jobs.publication.ledger import LIVE, REMOVED, Entry, Ledger
from jobs.publication.rollback import Wish, roll_back
from jobs.publication.status import Status
from serving.errors import StoreUnavailable
from serving.head import Head, Overlay
from serving.keys import block_key
from serving.refusals import Refusal, RefusalStore
from serving.store import Store
from tests.jobs.sites import NAME, Site
from tests.serving.publishing import DAY, head_for, raw, write

BACK = Wish(reason="it was bad", run_id="on-call")


def back(site: Site, to: int | None = None) -> tuple[int, int]:
    """Roll back, and return token and epoch of what is live then."""
    head = roll_back(site.pipeline, site.store, site.ledger, replace(BACK, to=to))
    assert site.store.head(NAME) == head
    return head.token, head.epoch


def test_each_rollback_goes_further_back_and_a_new_generation_starts_from_there(site: Site) -> None:
    for token in (1, 2, 3, 4):
        site.publish(token)
    assert back(site) == (3, 2)
    assert back(site) == (2, 3)
    site.publish(5)
    assert back(site) == (2, 4)
    assert back(site) == (1, 5)
    with pytest.raises(RollbackRefused, match=r"generation 1 is live, and there is no going back to one before it"):
        back(site)
    assert back(site, to=5) == (5, 6)


def test_what_comes_back_is_the_same_generation_on_record_with_the_reason(site: Site) -> None:
    first, second = site.publish(1), site.publish(2)
    RefusalStore(site.store, NAME).put(date(1998, 6, 3), Refusal("history only", "an older attempt", 0))
    back(site)
    again = replace(first, epoch=2, overlay=Overlay(first.layout.buckets))
    assert site.store.head(NAME) == again
    turn = site.ledger.read().turns[-1]
    assert (turn.token, turn.head) == (1, again)
    refusals = RefusalStore(site.store, NAME).read()
    assert refusals.keys() == {date(1998, 6, 4)}
    assert refusals[date(1998, 6, 4)].verdict == "rolled back"
    assert refusals[date(1998, 6, 4)].reason == "rollback from generation 2: it was bad"
    assert second.token == 2


def test_a_generation_with_a_block_less_is_refused_and_what_is_live_stays(site: Site) -> None:
    for token in (1, 2):
        site.publish(token)
    before = site.store.record(NAME)
    raw(site.store).delete(block_key(NAME, 1, 3))
    with pytest.raises(RollbackRefused, match="generation 1 lacks 1 of its 10 blocks"):
        back(site)
    assert site.store.record(NAME) == before


def test_what_never_was_live_or_was_removed_is_refused_and_the_others_are_named(site: Site) -> None:
    first = site.publish(1)
    for token in (2, 3):
        site.publish(token)
    site.ledger.reserve(Entry.of(first), above=0)
    site.ledger.write([(REMOVED, Entry.of(first))])
    for token in (1, 3, 4, 9):
        with pytest.raises(RollbackRefused, match=f"no going back to generation {token}: .*such are: 2$"):
            back(site, to=token)


def test_a_generation_that_is_removed_at_that_moment_does_not_stay_live(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for token in (1, 2):
        site.publish(token)
    live, real = site.store.head(NAME), Store.replace

    def removed(store: Store, observed: bytes | None, head: Head) -> object:
        monkeypatch.setattr(Store, "replace", real)
        raw(store).delete(block_key(NAME, 1, 0))
        return real(store, observed, head)

    monkeypatch.setattr(Store, "replace", removed)
    with pytest.raises(RollbackRefused, match="lacks 1 of its 10 blocks"):
        back(site)
    assert live is not None
    assert site.store.head(NAME) == replace(live, epoch=3)
    assert site.ledger.read().last == replace(live, epoch=3)


def test_a_head_that_moves_at_that_moment_is_left_alone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for token in (1, 2):
        site.publish(token)
    real = Store.replace

    def moved(store: Store, observed: bytes | None, head: Head) -> object:
        site.publish(3)
        return real(store, observed, head)

    monkeypatch.setattr(Store, "replace", moved)
    with pytest.raises(RollbackRefused, match="another head went live at this moment"):
        back(site)
    assert site.store.head(NAME) == site.ledger.read().last


def test_an_epoch_of_its_own_has_an_overlay_of_its_own(site: Site) -> None:
    """The buckets of an overlay are those of its epoch, and the one of another epoch holds the values taken back."""
    site.publish(1)
    publication = site.pipeline.publication.model_copy(update={"overlay": True})
    pipeline = site.pipeline.model_copy(update={"publication": publication})
    live = replace(site.publish(2), overlay=Overlay(77), epoch=2)
    assert site.store.replace(site.store.record(NAME), live) == "live"
    head = roll_back(pipeline, site.store, site.ledger, BACK)
    assert (head.epoch, head.overlay) == (3, Overlay(head.layout.buckets))


def test_a_head_that_the_ledger_missed_is_gone_back_from(site: Site) -> None:
    """Its publisher was killed right after the swap."""
    site.publish(1)
    scores = {"k": 0.5}
    head = replace(head_for(NAME, 2, scores), as_of=head_for(NAME, 1, scores).as_of + 2 * DAY)
    assert site.store.claim(NAME, 2)
    write(site.store, head, scores)
    assert site.store.swap(head) == "live"
    assert back(site) == (1, 2)
    assert [turn.token for turn in site.ledger.read().turns] == [1, 2, 1]


def test_one_that_was_cut_off_after_its_swap_is_ended_and_goes_no_further(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who sees it fail runs it again, and means the same."""
    for token in (1, 2, 3, 4):
        site.publish(token)
    real = Ledger.write

    def killed(ledger: Ledger, events: list[tuple[str, Entry]]) -> None:
        if events[0][0] == LIVE:
            raise KeyboardInterrupt
        real(ledger, events)

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            back(site)
    assert back(site) == (3, 2)
    last = site.ledger.read().turns[-1]
    assert last.head == site.store.head(NAME)
    assert RefusalStore(site.store, NAME).read()[date(1998, 6, 6)].reason == "rollback from generation 4: it was bad"
    assert back(site) == (2, 3)


def test_one_that_cannot_see_whether_all_is_there_is_ended_and_goes_no_further(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis went away after the swap."""
    for token in (1, 2, 3):
        site.publish(token)
    real = Store.replace

    def last_word(store: Store, observed: bytes | None, head: Head) -> object:
        patched.setattr(Store, "count_blocks", away)
        return real(store, observed, head)

    def away(*_: object) -> int:
        raise StoreUnavailable("Redis does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(Store, "replace", last_word)
        with pytest.raises(StoreUnavailable):
            back(site)
    status = Status(site.pipeline, site.store, site.ledger)
    assert any("not on record yet" in line for line in status.lines())
    assert back(site) == (2, 2)
    assert not any("not on record yet" in line for line in status.lines())
    assert [turn.token for turn in site.ledger.read().turns] == [1, 2, 3, 2]


def test_one_that_is_live_and_on_record_does_not_fail_for_what_is_said_of_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for token in (1, 2):
        site.publish(token)

    def away(*_: object) -> None:
        raise StoreUnavailable("Redis does not answer")

    monkeypatch.setattr(RefusalStore, "put", away)
    assert back(site) == (1, 2)


def test_without_anything_live_it_says_what_to_run(site: Site) -> None:
    with pytest.raises(RollbackRefused, match="run `scoreline republish purchase_propensity`"):
        back(site)


def test_without_a_ledger_it_says_so_and_what_is_live_stays(site: Site) -> None:
    live = site.publish(1)
    rmtree(site.ledger.path)
    with pytest.raises(RollbackRefused, match=r"no publications/purchase_propensity, .* correct SCORELINE_LAKE"):
        back(site)
    assert site.store.head(NAME) == live
