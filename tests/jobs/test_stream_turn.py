"""Whether a stream may run: it waits for Redis, and for the end of another one, and does not undo a stop."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from time import monotonic

import pytest

from jobs.errors import StreamChanged, StreamEnded, StreamRuns
from jobs.stream import turn as turns
from jobs.stream.turn import Turn
from serving.clock import Clock
from serving.keys import stream_key, stream_wish_key
from serving.store import Store
from serving.stream import SILENCE, StreamRecord
from tests.conftest import free_port, redis_at

NAME, CLOCK = "sold", Clock()


@pytest.fixture
def turn(store: Store) -> Turn:
    return Turn(NAME, store, CLOCK, Event())


def says(store: Store, **changes: object) -> StreamRecord:
    """Put on record a stream that runs, somewhere else, but for `changes`."""
    now = CLOCK.microseconds()
    good = StreamRecord(state="running", query_id="q", started_at=now, told_at=now, process="4711 on there")
    record: StreamRecord = replace(good, **changes)  # type: ignore[arg-type]  # reason: any of its fields
    store.ask("SET", stream_key(NAME), record.to_json())
    return record


@contextmanager
def beating(url: str, **changes: object) -> Iterator[None]:
    """A stream that says each moment that it lives."""
    ended = Event()

    def beat() -> None:
        with Store(url) as own:
            while not ended.wait(0.1):
                says(own, **changes)

    thread = Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_another_one_that_lives_is_refused_by_its_name(turn: Turn, jobs_redis_url: str) -> None:
    says(turn.store)
    here = f"{os.getppid()} on {socket.gethostname()}"
    for process in ("4711 on there", here):
        with (
            beating(jobs_redis_url, process=process),
            pytest.raises(StreamRuns, match=f"as process {process}: `scoreline stream stop {NAME}`"),
        ):
            turn.comes()


def test_one_that_is_dead_stopped_or_unreadable_holds_up_nobody(turn: Turn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor one of this host that is gone, though it had just said that it lives, nor this process's own earlier life."""
    monkeypatch.setattr(Turn, "_outlasts", None)
    assert turn.comes()
    says(turn.store, told_at=CLOCK.microseconds() - SILENCE)
    assert turn.comes()
    says(turn.store, state="stopped")
    assert turn.comes()
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    for number in (killed.pid, os.getpid()):
        says(turn.store, process=f"{number} on {socket.gethostname()}")
        assert turn.comes()
    turn.store.ask("SET", stream_key(NAME), b"{}")
    assert turn.comes()


def test_one_that_may_be_dead_is_waited_for_until_it_is_known(turn: Turn, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    says(turn.store, told_at=CLOCK.microseconds() - SILENCE + 1_500_000)
    begun = monotonic()
    assert turn.comes()
    assert monotonic() - begun > 1
    assert "process 4711 on there has just said that it is the stream: in 1 s" in caplog.text
    says(turn.store)
    turn.stopping.set()
    assert not turn.comes(), "told to stop meanwhile"


def test_one_that_stops_meanwhile_is_followed(turn: Turn, jobs_redis_url: str) -> None:
    says(turn.store)
    with beating(jobs_redis_url, state="stopped"):
        assert turn.comes()


def test_a_redis_that_is_away_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setattr("serving.wire.connection.PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(turns, "PAUSE_SECONDS", 0.1)
    with Store(f"redis://127.0.0.1:{port}/0") as store:
        turn, came = Turn(NAME, store, CLOCK, Event()), Event()

        def come() -> None:
            if turn.comes():
                came.set()

        thread = Thread(target=come)
        thread.start()
        while "the stream waits for Redis: " not in caplog.text:
            assert thread.is_alive()
        assert not came.is_set()
        with redis_at(port, tmp_path):
            thread.join(60)
            assert came.is_set()
        turn.stopping.set()
        assert not turn.comes()


def test_a_stop_is_forgotten_only_by_who_says_so(turn: Turn) -> None:
    turn.store.ask("SET", stream_wish_key(NAME), 1)
    assert turn.comes()
    assert turn.was_stopped()
    turn.forget_stop()
    assert not turn.was_stopped()


def test_the_fault_that_ends_it_is_on_record_with_what_it_had_done(turn: Turn) -> None:
    """Also where it ends before it has said anything."""
    with pytest.raises(StreamChanged), turn.on_record():
        raise StreamChanged("other\n columns")
    first = turn.store.stream(NAME)
    assert first is not None
    assert (first.state, first.fault, first.exit_code) == ("stopped", "other columns", 3)
    says(turn.store, keys=3)
    with pytest.raises(StreamEnded), turn.on_record():
        raise StreamEnded("a fault of Spark")
    second = turn.store.stream(NAME)
    assert second is not None
    assert (second.state, second.fault, second.exit_code, second.keys) == ("stopped", "a fault of Spark", 1, 3)
