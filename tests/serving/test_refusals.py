"""Refusals: one answer a date, the newest thirty dates, and none for a date that went live."""

from datetime import date, timedelta

import pytest

from serving.keys import refusals_key
from serving.refusals import MOST_DATES, Refusal, RefusalStore
from serving.store import Store

JUNE_2 = date(1998, 6, 2)
OLDER = Refusal("history only", "generation 7 as of 1998-06-03 is newer", 896_832_000_000_000)
BREACH = Refusal("rail breach", "43 % fewer rows; “käse”", 896_832_000_000_001)


@pytest.fixture(scope="module")
def store(any_store: Store) -> Store:
    return any_store


def test_the_last_answer_of_each_date_stays_until_it_goes_live(store: Store) -> None:
    refusals = RefusalStore(store, "refused")
    refusals.put(JUNE_2, OLDER)
    refusals.put(JUNE_2 + timedelta(1), OLDER)
    refusals.put(JUNE_2, BREACH)
    assert list(refusals.read().items()) == [(JUNE_2 + timedelta(1), OLDER), (JUNE_2, BREACH)]
    refusals.clear(JUNE_2)
    assert refusals.dates() == {JUNE_2 + timedelta(1)}
    refusals.clear()
    assert refusals.dates() == {JUNE_2 + timedelta(1)}
    refusals.clear(JUNE_2, JUNE_2 + timedelta(1))
    assert refusals.dates() == set()


def test_the_oldest_dates_are_dropped_in_whatever_order_they_came(store: Store) -> None:
    refusals = RefusalStore(store, "refused-often")
    dates = [JUNE_2 + timedelta(days) for days in range(MOST_DATES + 2)]
    for day in reversed(dates):
        refusals.put(day, OLDER)
    assert list(refusals.read()) == sorted(dates, reverse=True)[:MOST_DATES]


def test_what_another_version_wrote_hides_no_other(store: Store) -> None:
    refusals = RefusalStore(store, "refused-otherwise")
    refusals.put(JUNE_2, OLDER)
    for field, record in ((b"1998-06-03", b"{}"), (b"someday", b"{}"), (b"\xff", b"\xff")):
        store.ask("HSET", refusals_key("refused-otherwise"), field, record)
    assert refusals.read() == {JUNE_2: OLDER}
