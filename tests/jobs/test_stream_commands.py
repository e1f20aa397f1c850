"""`scoreline stream` as an operator runs it: what it prints and how it ends; the stream itself is elsewhere."""

import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from jobs.errors import ScorelineError
from jobs.stream import commands
from jobs.tables import events_table
from serving.clock import Clock, microseconds
from serving.keys import stream_key, stream_wish_key
from serving.settings import settings
from serving.store import Store
from serving.stream import SILENCE, Freshness, StreamRecord
from tests.conftest import ROOT
from tests.jobs.populations import streaming
from tests.jobs.shop import NAME, NOW
from tests.jobs.streamer import await_true
from tests.project import Project

NOON = microseconds(NOW)
RECORD = StreamRecord(
    state="running", query_id="q", started_at=NOON, told_at=NOON, batch=7, version=0, keys=3, quarantined=1,
    freshness=Freshness().with_all([0.4] * 19 + [2.5]),
)  # fmt: skip


class Terminal:
    """Where `scoreline stream ...` is typed."""

    def __init__(self, project: Project, store: Store) -> None:
        self.project, self.store = project, store

    def begin(self, *words: str) -> subprocess.Popen[str]:
        settings = self.project.settings
        variables = {
            "SCORELINE_PROJECT": str(settings.project),
            "SCORELINE_LAKE": settings.lake,
            "SCORELINE_REDIS_URL": self.store.url,
            "SCORELINE_CLOCK": f"{NOW.isoformat()}@{datetime.now(UTC).isoformat()}",
        }
        return subprocess.Popen(
            [sys.executable, "-m", "jobs", "stream", *words],
            env={**os.environ, **variables},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str) -> tuple[int, str, str]:
        process = self.begin(*words)
        said, complained = process.communicate(timeout=120)
        return process.returncode, said, complained

    def tell(self, record: StreamRecord) -> None:
        self.store.ask("SET", stream_key(NAME), record.to_json())


@pytest.fixture
def terminal(project: Project, store: Store) -> Terminal:
    declared = streaming(project)
    declared.lake.create(events_table(*declared.pipeline().events))
    return Terminal(declared, store)


def test_status_says_how_far_it_is_and_how_fresh(terminal: Terminal) -> None:
    terminal.tell(replace(RECORD, behind=2, behind_since=NOON - 40_000_000, progressed_at=NOON, process="7 on a.host"))
    code, said, complained = terminal.run("status", NAME)
    assert (code, complained) == (0, "")
    first, *others = said.splitlines()
    assert re.fullmatch(rf"{NAME}: running, last heard of \d+ s ago; process 7 on a.host", first)
    assert re.fullmatch(r"  events       up to append 0; 2 not read, the oldest for [4-9]\d s", others.pop(0))
    assert re.fullmatch(r"  micro-batch  7; last progress \d+ s ago", others.pop(0))
    assert others == [
        "  since start  3 scores, 1 rows of features quarantined",
        "  freshness    50% within 0.5 s, 95% within 0.5 s of the event's arrival",
    ]


def test_status_of_one_that_says_nothing_any_more_is_dead(terminal: Terminal) -> None:
    terminal.tell(replace(RECORD, told_at=NOON - SILENCE, freshness=Freshness()))
    code, said, _ = terminal.run("status", NAME)
    assert code == 0
    assert said.startswith(f"{NAME}: DEAD, last heard of ")
    assert "freshness" not in said


def test_status_without_a_stream_says_how_to_start_one(terminal: Terminal) -> None:
    code, _, complained = terminal.run("status", NAME)
    assert (code, f"`scoreline stream start {NAME}`" in complained) == (1, True)


@pytest.mark.parametrize("command", ["start", "stop", "status"])
def test_a_pipeline_without_a_stream_is_refused_with_what_to_write(
    project: Project, store: Store, command: str
) -> None:
    code, _, complained = Terminal(streaming(project, ""), store).run(command, NAME)
    assert code == 3
    assert "declares no stream: write stream: to keep its scores fresh" in complained


def test_stop_waits_until_the_stream_says_that_it_has(terminal: Terminal) -> None:
    terminal.tell(RECORD)
    process = terminal.begin("stop", NAME)
    await_true(lambda: terminal.store.ask("EXISTS", stream_wish_key(NAME)) == 1)
    assert process.poll() is None
    terminal.tell(replace(RECORD, state="stopped"))
    assert process.communicate(timeout=120)[0] == f"{NAME}: the stream has stopped\n"
    assert process.returncode == 0


@pytest.mark.timeout(400)
def test_one_runs_at_a_time_and_control_c_stops_it(terminal: Terminal) -> None:
    """Spark has a handler of its own for Control-C, by which Python ends in the middle of a micro-batch."""
    store = terminal.store
    first = terminal.begin("start", NAME)
    try:
        await_true(lambda: store.stream(NAME) is not None or first.poll() is not None)
        for option in ((), ("--rebuild",)):
            code, _, complained = terminal.run("start", NAME, *option)
            assert (code, f"runs already, as process {first.pid} on " in complained) == (1, True), complained
        first.send_signal(signal.SIGINT)
        _, complained = first.communicate(timeout=120)
    finally:
        first.kill()
        first.wait()
    assert (first.returncode, "Traceback" in complained) == (0, False), complained
    told = store.stream(NAME)
    assert told is not None
    assert (told.state, told.fault) == ("stopped", "")


def test_a_supervisor_does_not_undo_a_stop(terminal: Terminal) -> None:
    terminal.store.ask("SET", stream_wish_key(NAME), 1)
    code, said, _ = terminal.run("start", NAME, "--unless-stopped")
    assert (code, "somebody stopped the stream" in said) == (0, True)
    assert terminal.store.ask("EXISTS", stream_wish_key(NAME)) == 1


def test_a_stop_that_takes_too_long_names_the_process(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "STOP_SECONDS", 0)
    monkeypatch.setattr(commands, "_declared", lambda _: None)
    monkeypatch.setenv("SCORELINE_REDIS_URL", terminal.store.url)
    settings.cache_clear()
    terminal.tell(replace(RECORD, told_at=Clock().microseconds(), process="7 on a.host"))
    with pytest.raises(ScorelineError, match=r"or end its process \(7 on a.host\); what a micro-batch had not done"):
        commands.stop.callback(NAME)  # type: ignore[misc]  # reason: it is a command
    settings.cache_clear()


def test_stop_of_one_that_is_dead_waits_for_nobody(terminal: Terminal) -> None:
    terminal.tell(replace(RECORD, told_at=NOON - SILENCE))
    assert terminal.run("stop", NAME)[:2] == (0, f"{NAME}: the stream has stopped\n")
