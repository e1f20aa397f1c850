"""A replay: each event of the files once, in their order, evenly over the day; and what is seen of it."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from io import StringIO

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from jobs.erasure.erase import Erasure, Place
from jobs.erasure.scope import scope_of
from jobs.errors import DataFault
from jobs.ingest import ingest
from jobs.run import Run
from jobs.stream.live import LiveEvents
from jobs.stream.replay import COMMIT_SECONDS, events_of_days, play, schedule
from jobs.stream.view import Screen, Watch
from jobs.tables import events_table
from serving.client import Client
from serving.clock import Clock, microseconds
from serving.head import Head, Overlay
from serving.overlay import Fresh, OverlayStore
from serving.store import Store
from tests.jobs.conftest import DAY, NEXT
from tests.jobs.shop import EVENTS, NAME, NOW
from tests.project import Project, purchases
from tests.serving.conftest import service_at
from tests.serving.publishing import head_for, write

KEY = "customer_id"


def bought(*days: tuple[date, int]) -> pa.Table:
    """Return so many events of each day, numbered in order."""
    all_days = [day for day, many in days for _ in range(many)]
    return pa.table({"day": all_days, "event_id": [f"e{n:04d}" for n in range(len(all_days))]})


@given(st.lists(st.integers(0, 40), min_size=1, max_size=4), st.floats(COMMIT_SECONDS, 30))
def test_each_event_is_played_once_in_order_and_evenly(counts: list[int], seconds: float) -> None:
    days = [(DAY + timedelta(days=number), many) for number, many in enumerate(counts)]
    events = bought(*days)
    parts = list(schedule(events, DAY, seconds))
    assert [each for part in parts for each in part.events["event_id"].to_pylist()] == events["event_id"].to_pylist()
    assert [part.due_s for part in parts] == sorted({part.due_s for part in parts})
    due = [part.due_s for part in parts for _ in range(len(part.events))]
    wanted = [(number + n / many) * seconds for number, many in enumerate(counts) for n in range(many)]
    assert all(at <= even < at + COMMIT_SECONDS + 1e-6 for at, even in zip(due, wanted, strict=True))


def test_nothing_is_played_of_days_without_an_event() -> None:
    assert list(schedule(bought(), DAY, 60)) == []


def by_clock(run: Run, now: datetime) -> Run:
    return replace(run, clock=Clock(now - datetime.now(UTC)))


def test_what_is_played_is_what_ingest_would_have_appended(project: Project) -> None:
    """The same rows by the same ids, so that the day's file changes nothing afterwards; a bad row is in neither."""
    project.deliver(DAY, [*purchases(DAY, 90), f"00003,{DAY},one,1.00"])
    project.deliver(NEXT, purchases(NEXT, 4))
    run = by_clock(project.run(DAY), datetime(1998, 7, 1, tzinfo=UTC))
    played = events_of_days(run, DAY, NEXT)
    ingest(run, [DAY, NEXT])
    own = [name for name in played.column_names if name != "day"]
    stored = DeltaTable(project.settings.table(EVENTS)).to_pyarrow_table(columns=own)
    assert sorted(map(str, played.select(own).to_pylist())) == sorted(map(str, stored.to_pylist()))
    assert played["day"].to_pylist() == [DAY] * 90 + [NEXT] * 4


def test_days_that_have_not_come_yet_are_refused(project: Project) -> None:
    project.deliver(DAY, purchases(DAY, 2))
    run = by_clock(project.run(DAY), datetime.combine(DAY, datetime.min.time(), UTC) - timedelta(hours=1))
    with pytest.raises(DataFault, match="play days that are over, or set SCORELINE_CLOCK"):
        events_of_days(run, DAY, DAY)


@pytest.fixture
def live_head(store: Store) -> Head:
    """The head of a generation as of this morning, with one customer's score."""
    scores = {"00001": 0.25}
    head = replace(head_for(NAME, 1, scores), overlay=Overlay(4), as_of=microseconds(NOW - timedelta(hours=9)))
    assert store.claim(NAME, 1)
    write(store, head, scores)
    assert store.swap(head) == "live"
    return head


@pytest.fixture
def watch(store: Store, live_head: Head) -> Iterator[Watch]:
    clock = f"{(NOW + timedelta(minutes=1)).isoformat()}@{datetime.now(UTC).isoformat()}"
    with service_at(store.url, clock) as url, Client(url) as client:
        yield Watch(client, NAME)


def text_of(watch: Watch) -> str:
    console = Console(file=StringIO(), width=120)
    console.print(watch)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_the_view_shows_who_bought_their_scores_and_the_seconds(store: Store, live_head: Head, watch: Watch) -> None:
    keys = ["00001", "newcomer", "waiting"]
    watch.follow(watch.answers(keys), keys, NOW)
    watch.poll()
    assert "0 scores changed as customers bought, 3 are waited for" in watch.title()
    entries = [Fresh("00001", microseconds(NOW), (0.75,)), Fresh("newcomer", microseconds(NOW), (0.5,))]
    older = Fresh("waiting", microseconds(NOW) - 1, (0.5,))  # of an event before
    OverlayStore(store).write(live_head, [*entries, older])
    watch.poll()
    assert watch.waiting.keys() == {"waiting"}
    lines = {row.split()[1]: row.split() for row in text_of(watch).splitlines() if row.startswith("│")}
    assert lines["00001"][3::2][:3] == ["0.2500", "0.7500", f"{NOW:%H:%M:%S}"]
    assert lines["newcomer"][3::2][:3] == ["new", "0.5000", f"{NOW:%H:%M:%S}"]
    assert watch.title().startswith(f"{NAME}: 2 scores changed as customers bought, 1 are waited for: half within ")


def a_day(project: Project) -> tuple[Run, pa.Table]:
    """Deliver three purchases, and return their day's run and events."""
    project.deliver(DAY, purchases(DAY, 3))
    project.lake.create(events_table(*project.pipeline().events))
    run = by_clock(project.run(DAY), NOW)
    return run, events_of_days(run, DAY, DAY)


def test_a_replay_appends_each_part_and_follows_it(
    project: Project, store: Store, live_head: Head, watch: Watch
) -> None:
    """Nobody scores here but the test, so that each change is seen."""
    run, events = a_day(project)
    fresh = [Fresh(f"{n:05d}", microseconds(NOW + timedelta(seconds=30)), (0.5,)) for n in (1, 2, 3)]
    OverlayStore(store).write(live_head, fresh)
    screen = Screen(Console(file=StringIO()), watch)
    live = LiveEvents(project.settings.table(EVENTS))
    with screen:
        assert play(schedule(events, DAY, COMMIT_SECONDS), live, run, screen) == 3
    assert (watch.waiting, len(watch.seconds)) == ({}, 3)
    table = DeltaTable(project.settings.table(EVENTS)).to_pyarrow_table()
    assert sorted(table["event_id"].to_pylist()) == sorted(events["event_id"].to_pylist())
    assert set(table["table_version"].to_pylist()) == {0}


def test_a_key_that_is_erased_while_events_are_played_does_not_come_again(
    project: Project, store: Store, live_head: Head, watch: Watch
) -> None:
    run, events = a_day(project)
    scope = scope_of(run.pipeline, {NAME: run.pipeline})
    Erasure(Place(project.lake, project.settings, store, Clock()), scope, "00002")._begin()
    fresh = [Fresh(f"{n:05d}", microseconds(NOW + timedelta(seconds=30)), (0.5,)) for n in (1, 3)]
    OverlayStore(store).write(live_head, fresh)
    live = LiveEvents(project.settings.table(EVENTS))
    with Screen(Console(file=StringIO()), watch) as screen:
        assert play(schedule(events, DAY, COMMIT_SECONDS), live, run, screen) == 2
    table = DeltaTable(project.settings.table(EVENTS)).to_pyarrow_table()
    assert set(table[KEY].to_pylist()) == {"00001", "00003"}
    assert set(table["table_version"].to_pylist()) == {0}
