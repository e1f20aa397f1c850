"""The embedded runtime's processes: exactly those that it started are stopped."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from infra.embedded import places, processes
from infra.embedded.errors import EmbeddedError
from infra.embedded.processes import MARK, Started, recorded, start, stop
from tests.conftest import free_port

SLEEP = "import time; time.sleep(600)"
# A service whose task sits in a process group of its own, as Airflow's do, and says where it is.
FAMILY = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {SLEEP!r}], process_group=0)
print(child.pid, flush=True)
child.wait()
"""
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Records and logs of a test's own; what a failing test leaves is killed."""
    monkeypatch.setattr(processes, "RECORDS", tmp_path)
    monkeypatch.setattr(processes, "LOGS", tmp_path)
    yield tmp_path
    for child in psutil.Process().children(recursive=True):
        if SLEEP in child.cmdline():
            child.kill()


def begin(name: str, code: str, **environment: str) -> Started:
    return start(name, [sys.executable, "-c", code], "", {**os.environ, **environment})


def first_words(started: Started) -> str:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        text = Path(started.log).read_text()
        if text.endswith("\n"):
            return text.strip()
        time.sleep(0.02)
    raise TimeoutError(started.log)


@pytest.mark.usefixtures("folders")
def test_a_service_and_its_children_end_and_others_do_not() -> None:
    ours, other = begin("ours", FAMILY), begin("other", SLEEP)
    child = int(first_words(ours))

    stop([ours])

    assert not psutil.pid_exists(ours.pid)
    assert not psutil.pid_exists(child)
    assert other.process() is not None
    assert [service.name for service in recorded()] == ["other"]
    assert stop([other]) == 1


@pytest.mark.usefixtures("folders")
def test_what_a_killed_service_left_behind_is_found_by_its_session() -> None:
    service = begin("killed", FAMILY)
    child = int(first_words(service))
    os.kill(service.pid, signal.SIGKILL)
    os.waitpid(service.pid, 0)
    assert service.process() is None
    assert psutil.pid_exists(child)

    stop([service])

    assert not psutil.pid_exists(child)


@pytest.mark.usefixtures("folders")
def test_what_has_a_session_of_its_own_is_found_by_its_mark() -> None:
    task = subprocess.Popen(
        [sys.executable, "-c", SLEEP], env={**os.environ, MARK: "this-test"}, start_new_session=True
    )

    assert stop([], "another") == 0
    assert task.poll() is None
    assert stop([], "this-test") == 1
    task.wait()
    assert not psutil.pid_exists(task.pid)


@pytest.mark.usefixtures("folders")
def test_a_service_that_ignores_the_polite_signal_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "GRACE_S", 0.5)
    service = begin("stubborn", STUBBORN)
    first_words(service)

    stop([service])

    assert not psutil.pid_exists(service.pid)


@pytest.mark.usefixtures("folders")
def test_a_pid_that_somebody_else_has_now_is_left_alone() -> None:
    somebody = begin("somebody", SLEEP)
    reused = replace(somebody, name="ours", began=somebody.began - 3600)

    assert reused.process() is None
    assert stop([reused]) == 0
    assert somebody.process() is not None
    assert stop([somebody]) == 1


def test_a_port_that_was_asked_for_must_be_free(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("SCORELINE_REDIS_PORT", str(port))
    assert places.choose_ports().redis == port

    monkeypatch.setenv("SCORELINE_REDIS_PORT", "http")
    with pytest.raises(EmbeddedError, match="SCORELINE_REDIS_PORT=http is no free port"):
        places.choose_ports()


def test_a_preferred_port_that_is_taken_gives_way(redis_url: str) -> None:
    taken = int(redis_url.rsplit(":", 1)[1].split("/", maxsplit=1)[0])

    assert places.choose("redis", taken) != taken
