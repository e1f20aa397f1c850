"""What is removed: what can never go live, what nobody goes back to, what was overtaken; and never before its time."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, date, datetime, time

import pytest
from deltalake import DeltaTable

from jobs.errors import RollbackRefused
from jobs.publication.ledger import GRACE, HISTORY, LIVE, NO_GENERATION, Entry, History, Ledger
from jobs.publication.retention import Retention
from jobs.publication.rollback import Wish, roll_back
from serving.head import Head, Overlay
from serving.overlay import Fresh, OverlayStore
from serving.refusals import Refusal, RefusalStore
from serving.store import Store
from tests.jobs.sites import NAME, Site
from tests.serving.publishing import DAY

LATER = GRACE.total_seconds() + 1
FRESHER = Overlay(5)


def removed(site: Site) -> list[int]:
    return sorted(one.token for one in site.ledger.read().generations if one.removed)


def test_what_lost_its_claim_is_freed_and_not_called_removed(site: Site) -> None:
    site.publish(1)
    for token in (2, 3, 4):
        site.reserve(token)
    site.retention.free(site.ledger.read(), claimed=3)
    assert site.there() == [1, 3, 4]
    assert removed(site) == []


def test_the_last_that_were_live_stay_in_the_order_in_which_they_were(site: Site) -> None:
    """Generation 2 came back after 4, so that 4 went live before it."""
    kept = site.declaring(keep=2)
    for token in (1, 2, 3, 4):
        head = kept.after(token * LATER).publish(token)
    back = replace(head, token=2, epoch=2)
    later = kept.after(5 * LATER)
    assert later.store.replace(later.store.record(NAME), back) == "live"
    later.ledger.write([(LIVE, Entry.of(back))])
    later = kept.after(6 * LATER)
    assert later.retention.sweep(later.publish(5), back) == 3
    assert (later.there(), removed(later)) == ([2, 5], [1, 3, 4])


def test_nothing_goes_that_a_reader_may_hold(site: Site) -> None:
    one = site.declaring(keep=1)
    heads = [one.after(token / 10).publish(token) for token in (1, 2, 3)]
    assert one.after(1).retention.sweep(heads[2], heads[1]) == 0
    assert one.after(LATER).retention.sweep(heads[2], heads[1]) == 1
    assert one.there() == [2, 3]
    assert one.after(LATER).retention.sweep(heads[2], None) == 1
    assert (one.there(), removed(one)) == ([3], [1, 2])


def test_fewer_than_are_kept_all_stay(site: Site) -> None:
    many = site.declaring(keep=5)
    heads = [many.after(token * LATER).publish(token) for token in (1, 2, 3)]
    assert many.after(9 * LATER).retention.sweep(heads[2], None) == 0
    assert many.there() == [1, 2, 3]


def test_what_was_abandoned_is_removed_when_its_task_must_have_ended(site: Site) -> None:
    site.reserve(1)
    head, timeout = site.publish(2), site.pipeline.schedule.timeout_minutes * 60
    assert site.after(timeout - 60).retention.sweep(head, None) == 0
    assert site.after(timeout + 60).retention.sweep(head, None) == 1
    assert (site.there(), removed(site)) == ([2], [1])


def test_what_was_brought_back_at_that_moment_stays(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    one = site.declaring(keep=1)
    heads = [one.after(token * LATER).publish(token) for token in (1, 2, 3)]
    real = Retention._over

    def brought_back(*given: object) -> object:
        found = list(real(*given))  # type: ignore[arg-type]  # reason: passed on as they came
        assert one.store.replace(one.store.record(NAME), replace(heads[0], epoch=2)) == "live"
        return found

    monkeypatch.setattr(Retention, "_over", brought_back)
    one.after(9 * LATER).retention.sweep(heads[2], None)
    assert 1 in one.there()
    assert removed(one) == [2]


def test_what_is_gone_back_to_while_it_is_removed_never_goes_live(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of its blocks are there still, and the ledger does not know yet."""
    one = site.declaring(keep=1)
    heads = [one.after(token * LATER).publish(token) for token in (1, 2, 3)]
    live, real = one.store.record(NAME), Store.unlink

    def gone_back(store: Store, names: Iterable[str]) -> int:
        monkeypatch.setattr(Store, "unlink", real)
        with pytest.raises(RollbackRefused, match="generation 1 is just being removed: go back to another one"):
            roll_back(one.pipeline, one.store, one.ledger, Wish(to=1))
        return real(store, names)

    monkeypatch.setattr(Store, "unlink", gone_back)
    assert one.after(9 * LATER).retention.sweep(heads[2], heads[1]) == 1
    assert one.store.record(NAME) == live
    assert (one.there(), removed(one)) == ([2, 3], [1])


def test_refusals_of_dates_that_are_live_go_and_one_that_comes_meanwhile_stays(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backfill's day is history only while the sweep is at it."""
    head = site.publish(2)
    dates = [date(1998, 6, day) for day in (1, 4, 9)]  # the second is the live one
    refusals, real = RefusalStore(site.store, NAME), Ledger.read

    def refuse(day: date) -> None:
        entry = replace(Entry.of(head), as_of=datetime.combine(day, time(), UTC), token=NO_GENERATION, note="older")
        site.ledger.write([(HISTORY, entry)])
        refusals.put(day, Refusal(HISTORY, "older", 0))

    def late(ledger: Ledger) -> History:
        found = real(ledger)
        refuse(dates[2])
        return found

    refuse(dates[0])
    refusals.put(dates[1], Refusal(HISTORY, "it could not be forgotten when it went live", 0))
    monkeypatch.setattr(Ledger, "read", late)
    site.retention.sweep(head, None)
    assert refusals.dates() == {dates[0], dates[2]}


def entries(store: Store, head: Head) -> int:
    """Return how many entries the overlay of a head's epoch has."""
    return len(list(OverlayStore(store).entries(head)))


def fresh(store: Store, head: Head, *after: float) -> None:
    """Write entries of keys a, b, ... as of so many days after the head's as_of."""
    keys = "abcdef"
    entries = [Fresh(key, head.as_of + int(days * DAY), (0.5,)) for key, days in zip(keys, after, strict=False)]
    assert OverlayStore(store).write(head, entries) == len(after)


def test_entries_go_that_the_generation_before_had_overtaken(site: Site) -> None:
    """A reader who holds the head before needs those that only the new one has overtaken."""
    first = site.publish(1, overlay=FRESHER)
    fresh(site.store, first, -0.5, 0, 0.5, 1, 1.5)
    later = site.after(5)
    second = later.publish(2, overlay=FRESHER)
    later.retention.sweep(second, first)
    assert entries(site.store, second) == 5
    later = site.after(LATER)
    third = later.publish(3, overlay=FRESHER)
    site.after(LATER).retention.sweep(third, second)
    assert entries(site.store, third) == 5
    site.after(9 * LATER).retention.sweep(third, second)
    assert entries(site.store, third) == 1


def test_the_overlay_of_an_epoch_goes_once_when_it_is_over(site: Site) -> None:
    first = site.publish(1, overlay=FRESHER)
    fresh(site.store, first, 0.5)
    second = site.after(LATER).publish(2, overlay=FRESHER, epoch=2)
    fresh(site.store, second, 0.5)
    site.after(LATER).retention.sweep(second, first)
    assert entries(site.store, first) == 1
    for _ in range(2):
        site.after(3 * LATER).retention.sweep(second, first)
        assert (entries(site.store, first), entries(site.store, second)) == (0, 1)
    rows = DeltaTable(site.ledger.path).to_pyarrow_table().to_pylist()
    assert [row["event"] for row in rows].count("overlay dropped") == 1
