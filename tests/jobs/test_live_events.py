"""Small appends without Spark: each has a number of its own, whoever else appends at the same moment."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from threading import Event, Timer
from typing import Any

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from jobs.errors import Fenced
from jobs.ingest import ingest
from jobs.stream import tail, way
from jobs.stream.live import LiveEvents
from jobs.stream.sink import AppendOnly
from jobs.tables import APPENDS, events_table
from tests.jobs.appending import APPENDED, NOON, append, bought
from tests.jobs.conftest import DAY
from tests.jobs.populations import streaming
from tests.jobs.shop import EVENTS, NOW, SECOND, rows
from tests.project import Project, purchases

WRITERS = 4


@pytest.fixture
def path(project: Project) -> str:
    """The path of an events table without events."""
    project.lake.create(events_table(*project.pipeline().events))
    return project.settings.table(EVENTS)


def stored(path: str) -> list[dict[str, Any]]:
    return list(DeltaTable(path).to_pyarrow_table().to_pylist())


def test_an_append_is_numbered_and_says_no_more_than_is_known(path: str) -> None:
    live = LiveEvents(path)
    assert [live.append(rows(("00001", "20.00"), ids=(f"order-{n}",)), NOW) for n in range(2)] == [0, 1]
    first = next(row for row in stored(path) if row["event_id"] == "order-0")
    assert (first["customer_id"], first["arrived_at"], first["table_version"]) == ("00001", NOW, 0)
    assert first["event_time"] == datetime(NOW.year, NOW.month, NOW.day, tzinfo=UTC)
    assert {name for name, value in first.items() if value is None} == {"day", "source_file", "file_digest"}


def threads() -> Executor:
    return ThreadPoolExecutor(WRITERS)


def processes() -> Executor:
    return ProcessPoolExecutor(WRITERS, get_context("spawn"))  # a fork would share the libraries' own threads


@pytest.mark.parametrize("pool", [threads, processes])
def test_of_many_writers_none_loses_anything_and_no_number_is_given_twice(
    path: str, pool: Callable[[], Executor]
) -> None:
    with pool() as writers:
        told = [writers.submit(append, path, writer) for writer in range(WRITERS)]
        numbers = {writer: future.result() for writer, future in enumerate(told)}
    given = [number for each in numbers.values() for number in each]
    assert sorted(given) == list(range(WRITERS * APPENDED))
    found = {row["event_id"]: row["table_version"] for row in stored(path)}
    assert found == {f"{writer}-{n}": each[n] for writer, each in numbers.items() for n in range(APPENDED)}


def test_what_is_delivered_gets_in_beside_live_events(project: Project, path: str) -> None:
    """The day's file is appended while purchases go on; both are whole, and each append has a number of its own.

    Here the stream is that of another pipeline, which shares the source.
    """
    declared = streaming(project, "")
    declared.deliver(DAY, purchases(DAY, 30))
    live, over = LiveEvents(path), Event()

    def go_on() -> int:
        numbers = count()
        while not over.wait(0.02):
            live.append(bought(1, next(numbers)), NOON)
        return next(numbers)

    with ThreadPoolExecutor(1) as beside:
        going = beside.submit(go_on)
        try:
            ingest(declared.run(DAY), [DAY])
        finally:
            over.set()
        number = going.result()
    found = stored(path)
    assert Counter(row["source_file"] is None for row in found) == {True: number, False: 30}
    by_append = {row["table_version"]: row["source_file"] for row in found}
    assert sorted(by_append) == list(range(number + 1))
    assert sum(file is not None for file in by_append.values()) == 1


def test_who_asks_for_way_and_dies_is_waited_for_once(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(way, "WAIT_SECONDS", 0.2)
    live = LiveEvents(path)
    way._say(path, odd=1)
    live.newest()  # it hears of it
    assert live.append(rows(("00001", "20.00")), NOW) == 0
    monkeypatch.setattr(way, "WAIT_SECONDS", 1e9)
    assert live.append(rows(("00001", "20.00")), NOW) == 1
    with ThreadPoolExecutor(1) as beside:
        with way.way_through(path):
            live.newest()
            waiting = beside.submit(live.append, rows(("00001", "20.00")), NOW)
            with pytest.raises(TimeoutError):
                waiting.result(1)
        assert waiting.result() == 2


def test_who_never_gets_a_number_says_so(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else is always a moment faster; what was to be appended is not there."""

    def late(table: DeltaTable, events: pa.Table, **named: Any) -> None:
        other = DeltaTable(path)
        last = other.transaction_version(APPENDS)
        mark = CommitProperties(app_transactions=[Transaction(APPENDS, 0 if last is None else last + 1)])
        write_deltalake(other, events.slice(0, 0), mode="append", commit_properties=mark)
        write_deltalake(table, events, **named)

    monkeypatch.setattr(tail, "write_deltalake", late)
    with pytest.raises(Fenced, match="20 times: try again"):
        LiveEvents(path).append(rows(("00001", "20.00")), NOW)
    assert stored(path) == []


Overtaken = Callable[[Callable[[], object]], None]


@pytest.fixture
def overtaken(monkeypatch: pytest.MonkeyPatch) -> Overtaken:
    """Have somebody else do something just before the next commit."""

    def once(other: Callable[[], object]) -> None:
        others = [other]

        def late(*given: Any, **named: Any) -> None:
            if others:
                others.pop()()
            write_deltalake(*given, **named)

        monkeypatch.setattr(tail, "write_deltalake", late)

    return once


def test_two_who_ask_for_way_at_once_both_get_it(path: str, overtaken: Overtaken) -> None:
    with ExitStack() as both:
        overtaken(lambda: both.enter_context(way.way_through(path)))
        both.enter_context(way.way_through(path))
        assert DeltaTable(path).transaction_version(way.WAY) == 3
        overtaken(lambda: way._say(path, odd=0))
    assert (DeltaTable(path).transaction_version(way.WAY) or 0) % 2 == 0


def test_what_a_zombie_appends_at_the_same_moment_is_appended_once(path: str, overtaken: Overtaken) -> None:
    """Both know of nothing; the slower one looks again, and finds it done."""
    events, bought_then = rows(("00001", "20.00")), rows(("00002", "20.00"))
    overtaken(lambda: LiveEvents(path).append_once(events, NOW, "topic/1", 0))
    live = LiveEvents(path)
    assert not live.append_once(events, NOW, "topic/1", 0)
    assert live.append_once(bought_then, NOW, "topic/1", 1)
    table, whole = AppendOnly(path), DeltaTable(path).to_pyarrow_table().slice(0, 1)
    overtaken(lambda: AppendOnly(path).append_once(whole, "stream/0", 0))
    assert not table.append_once(whole, "stream/0", 0)
    assert table.append_once(whole, "stream/0", 1)
    assert len(stored(path)) == 4


def test_spark_learns_from_the_checksum_of_a_commit_what_has_not_changed(project: Project, path: str) -> None:
    """Without one it would run a job; and what the checksums say is what it would have found."""
    live = LiveEvents(path)
    for files in (3, 4):  # first beside what made the table, then beside what put its files together
        for number in range(3):
            live.append(rows((f"{number:05d}", "1.00")), NOW + number * SECOND)
        snapshot = project.lake._snapshot(EVENTS)
        assert snapshot.checksumOpt().isDefined()
        assert (snapshot.version(), snapshot.numOfFiles()) == (live.tail.table.version(), files)
        assert snapshot.validateChecksum(getattr(snapshot, "validateChecksum$default$1")())
        project.lake.compact(EVENTS)


def test_a_log_that_shows_a_version_before_the_one_below_it_is_looked_at_again(path: str) -> None:
    """As its folder may be listed while two writers commit."""
    reader, writer = LiveEvents(path), LiveEvents(path)
    for _ in range(2):
        writer.append(rows(("00001", "1.00")), NOW)
    log = Path(path) / "_delta_log"
    late = log / f"{writer.tail.table.version() - 1:020}.json"
    hidden = late.rename(log / "hidden")
    appears = Timer(0.3, lambda: hidden.rename(late))
    appears.start()
    try:
        assert reader.newest() == writer.newest()
    finally:
        appears.join()
