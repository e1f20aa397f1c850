"""The ledger: tokens that nobody shares, manifests before swaps, and an order that no clock decides."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from jobs.publication.ledger import BREACH, DIFFERS, HISTORY, LIVE, MANY_FILES, REMOVED, VERIFIED, Entry, Ledger
from jobs.spec import Settings
from jobs.tables import publications_table
from serving.clock import Clock, instant
from serving.head import Head
from serving.refusals import MOST_DATES
from serving.store import Outcome
from tests.project import Project
from tests.serving.publishing import DAY, head_for

NAME = "purchase_propensity"
WANTED = Entry(as_of=datetime(1998, 6, 2, tzinfo=UTC), run_id="r", rows=7, buckets=2)


@pytest.fixture
def ledger(project: Project) -> Ledger:
    project.lake.create(publications_table(NAME))
    return Ledger.of(project.settings, NAME, Clock())


def head(token: int, days: int = 0, epoch: int = 1) -> Head:
    base = head_for(NAME, token, {"k": 0.5})
    return replace(base, as_of=base.as_of + days * DAY, epoch=epoch)


def live(ledger: Ledger, *heads: Head) -> None:
    ledger.write((LIVE, Entry.of(one)) for one in heads)


def test_no_two_get_one_token(ledger: Ledger) -> None:
    with ThreadPoolExecutor(4) as pool:
        tokens = list(pool.map(lambda _: ledger.reserve(WANTED, 0).token, range(12)))
    assert sorted(tokens) == list(range(1, 13))
    assert ledger.reserve(WANTED, above=40).token == 41
    assert ledger.reserve(WANTED, above=7).token == 42


def test_a_manifest_is_there_before_the_swap_whatever_becomes_of_that(ledger: Ledger) -> None:
    going = head(1)

    def killed() -> Outcome:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ledger.go_live(Entry.of(going, "why"), killed)
    rows = DeltaTable(ledger.path).to_pyarrow_table().to_pylist()
    assert [(row["event"], row["note"], row["manifest"]) for row in rows] == [
        (VERIFIED, "why", going.to_json().decode())
    ]
    assert ledger.read().last is None
    assert ledger.go_live(Entry.of(going), lambda: "older") == "older"
    assert ledger.read().last is None
    assert ledger.go_live(Entry.of(going), lambda: "live") == "live"
    assert ledger.read().last == going


def test_a_head_whose_publisher_died_after_its_swap_is_admitted_once(ledger: Ledger) -> None:
    found = head(3, epoch=2)
    for _ in range(2):
        history = ledger.admit(found)
        assert [(turn.token, turn.head) for turn in history.turns] == [(3, found)]
    assert ledger.admit(None) == history


def test_what_went_live_last_is_decided_by_epochs_not_by_clocks(ledger: Ledger) -> None:
    later = replace(ledger, clock=Clock(timedelta(days=9)))
    live(later, head(1), head(2, days=1))
    live(ledger, head(1, epoch=2))
    history = ledger.read()
    assert history.last == head(1, epoch=2)
    assert [turn.token for turn in history.turns] == [1, 2, 1]


def test_what_happened_to_a_generation_is_summed_up(ledger: Ledger) -> None:
    for _ in range(2):
        ledger.reserve(WANTED, 0)
    live(ledger, head(1))
    ledger.write([(REMOVED, Entry.of(head(1)))])
    first, second = ledger.read().generations
    assert (first.token, first.removed, [turn.head for turn in first.turns]) == (1, True, [head(1)])
    assert (second.token, second.removed, second.turns, second.buckets) == (2, False, (), 2)
    assert first.as_of == instant(head(1).as_of)


def refused(ledger: Ledger, verdict: str, one: Head, note: str = "") -> None:
    ledger.write([(verdict, Entry.of(one, note))])


def test_why_a_date_is_not_live_is_said_until_it_is(ledger: Ledger) -> None:
    refused(ledger, HISTORY, head(1), "an older attempt")
    refused(ledger, BREACH, head(2, days=1), "500 scores")
    refused(ledger, DIFFERS, head(3), "bucket 7")
    found = ledger.read().refused
    assert [(str(day), why.verdict, why.reason) for day, why in found.items()] == [
        ("1998-06-03", "rail breach", "500 scores"),
        ("1998-06-02", "differs", "bucket 7"),
    ]
    live(ledger, head(4))
    assert [str(day) for day in ledger.read().refused] == ["1998-06-03"]
    live(ledger, head(5, days=1))
    assert ledger.read().refused == {}


def test_a_date_that_was_taken_back_is_said_until_it_comes_back(ledger: Ledger) -> None:
    for token in range(3):
        live(ledger, head(1 + token, days=token))
    for token in (1, 0):
        ledger.write([(LIVE, Entry.of(head(1 + token, days=token, epoch=5 - token), f"back to {1 + token}"))])
    found = {str(day): (why.verdict, why.reason) for day, why in ledger.read().refused.items()}
    assert found == {"1998-06-04": ("rolled back", "back to 2"), "1998-06-03": ("rolled back", "back to 1")}
    live(ledger, head(2, days=1, epoch=6))
    assert [str(day) for day in ledger.read().refused] == ["1998-06-04"]


def test_whether_a_date_was_taken_back_no_clock_decides(ledger: Ledger) -> None:
    """The machine of the second generation is ahead of that of the rollback."""
    ahead, behind = replace(ledger, clock=Clock(timedelta(hours=1))), ledger
    live(behind, head(1))
    live(ahead, head(2, days=1))
    live(behind, head(1, epoch=2))
    assert {str(day): why.verdict for day, why in ledger.read().refused.items()} == {"1998-06-03": "rolled back"}


def test_of_many_dates_the_newest_are_kept(ledger: Ledger) -> None:
    ledger.write((HISTORY, Entry.of(head(1, days=days))) for days in range(MOST_DATES + 2))
    days = list(ledger.read().refused)
    assert (len(days), str(days[0])) == (MOST_DATES, "1998-07-03")


def test_the_table_stays_as_spark_made_it_and_spark_reads_it(project: Project, ledger: Ledger) -> None:
    before = DeltaTable(ledger.path)
    for _ in range(12):  # beyond a checkpoint
        ledger.reserve(WANTED, 0)
    live(ledger, head(1))
    after = DeltaTable(ledger.path)
    assert after.protocol() == before.protocol()
    assert after.protocol().min_reader_version == 1
    assert after.schema().to_json() == before.schema().to_json()
    assert project.lake.read(ledger.name).where("event = 'reserved'").count() == 12


def test_many_small_files_become_one_and_say_the_same(project: Project, ledger: Ledger) -> None:
    for number in range(MANY_FILES):
        live(ledger, head(1 + number // 50, epoch=1 + number))
    ledger.compact()
    assert len(DeltaTable(ledger.path).file_uris()) == MANY_FILES
    live(ledger, head(9))
    before = ledger.read()
    ledger.compact()
    assert len(DeltaTable(ledger.path).file_uris()) == 1
    assert ledger.read() == before
    assert project.lake.read(ledger.name).count() == MANY_FILES + 1


def test_no_ledger_is_an_empty_history(tmp_path: Path) -> None:
    assert Ledger.of(Settings(lake=str(tmp_path)), NAME, Clock()).read().generations == ()


def test_a_manifest_of_another_version_is_none(ledger: Ledger) -> None:
    live(ledger, head(1))
    table = DeltaTable(ledger.path)
    rows = table.to_pyarrow_table().to_pylist()
    rows[0] |= {"token": 2, "manifest": '{"format": 2}'}
    write_deltalake(table, pa.Table.from_pylist(rows, schema=pa.schema(table.schema())), mode="append")
    assert ledger.read().last == head(1)
    assert [turn.token for turn in ledger.read().turns] == [2, 1]
