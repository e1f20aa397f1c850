"""The embedded runtime's processes: exactly those that it started are stopped."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from infra.embedded import processes
from infra.embedded.birth import began
from infra.embedded.processes import MARK, Started, recorded, start, stop

SLEEP = "import time; time.sleep(600)"
# A service whose task sits in a process group of its own, as Airflow's do, and says where it is.
FAMILY = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {SLEEP!r}], process_group=0)
print(child.pid, flush=True)
child.wait()
"""
# A service that looks, before it ends, whether what it started is still there.
CAREFUL = f"""
import signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {SLEEP!r}])
def end(*_):
    try:
        child.wait(1)
    except subprocess.TimeoutExpired:
        print("in order", flush=True)
    sys.exit()
signal.signal(signal.SIGTERM, end)
print(child.pid, flush=True)
signal.pause()
"""
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Records and logs of a test's own; what a failing test leaves is killed."""
    monkeypatch.setattr(processes, "RECORDS", tmp_path)
    monkeypatch.setattr(processes, "LOGS", tmp_path)
    yield tmp_path
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # other tests' processes end meanwhile
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
def test_a_service_ends_before_what_it_started_does() -> None:
    """As a stream does, which ends between two micro-batches only while its JVM lives."""
    careful = begin("careful", CAREFUL)
    child = int(first_words(careful))

    assert stop([careful]) == 2

    assert Path(careful.log).read_text().splitlines()[1:] == ["in order"]
    assert not psutil.pid_exists(child)


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
    reused = replace(somebody, name="ours", began=somebody.began - 1)

    assert reused.process() is None
    assert stop([reused]) == 0
    assert somebody.process() is not None
    assert stop([somebody]) == 1


@pytest.mark.usefixtures("folders")
def test_a_record_of_before_the_boot_is_none() -> None:
    somebody = begin("somebody", SLEEP)
    processes.record(replace(somebody, boot="an earlier life of this machine"))

    assert recorded() == []
    assert stop([somebody]) == 1


@pytest.mark.usefixtures("folders")
def test_what_is_older_than_the_service_is_not_of_its_session() -> None:
    """The leader is gone, and its number is the session of somebody who was there before."""
    somebody = begin("somebody", FAMILY)
    child = psutil.Process(int(first_words(somebody)))
    os.kill(somebody.pid, signal.SIGKILL)
    os.waitpid(somebody.pid, 0)

    assert stop([replace(somebody, name="ours", began=somebody.began + 3600)]) == 0
    assert child.is_running()
    child.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere processes have no start that nobody can set")
def test_a_clock_that_is_set_changes_no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    before = began(os.getpid())
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: 0.0)

    assert began(os.getpid()) == before
    with pytest.raises(psutil.NoSuchProcess):
        began(2**22 + 1)


@pytest.mark.usefixtures("folders")
def test_a_record_cut_off_counts_as_none_and_is_said(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folders / "redis.json").write_text("")

    assert recorded() == []
    assert f"{folders}/redis.json cannot be read" in capsys.readouterr().err
    processes.forget()
    assert list(folders.glob("*.json")) == []
