"""The submit operator with real spark-submits: how it fails, and that it leaves nothing running."""

import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import psutil
import pytest
from airflow.sdk import DAG, Asset, Context
from airflow.sdk.execution_time.context import OutletEventAccessors

from dags.errors import JobFailed, JobRefused, failure
from dags.submit import SubmitJob

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
ENDING = """
import sys
print("scoreline: error: an earlier line", file=sys.stderr)
print("scoreline: error: {reason}", file=sys.stderr)
sys.exit({code})
"""
# Tells who it and its JVM are, and stays.
STAYING = """
import os, sys, time
with open(sys.argv[1] + ".new", "w") as file:
    file.write(f"{os.getppid()} {os.getpid()}")
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(300)
"""
WORKER = """
import sys
from airflow.sdk import DAG
from dags.submit import SubmitJob
with DAG("killed", schedule=None):
    task = SubmitJob(task_id="job", application=sys.argv[1], application_args=[sys.argv[2]])
task.execute({})
"""


ASSET = Asset(name="some.scores", uri="x-scoreline://scores/some")


def job(folder: Path, program: str, *arguments: str) -> SubmitJob:
    application = folder / "an application.py"
    application.write_text(program, "utf-8")
    with DAG("submit", schedule=None):
        return SubmitJob(task_id="job", application=str(application), application_args=list(arguments), outlets=[ASSET])


def execute_and_fail(task: SubmitJob) -> None:
    with pytest.raises(JobFailed):
        task.execute({})


def processes(note: Path) -> list[psutil.Process]:
    """Return the JVM and the Python driver of a job that stays, once it is there."""
    deadline = time.monotonic() + 60
    while not note.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    return [psutil.Process(int(pid)) for pid in note.read_text("utf-8").split()]


def test_a_job_that_succeeds_says_on_its_asset_what_it_made(tmp_path: Path) -> None:
    task = job(tmp_path, "print('done')")
    events = OutletEventAccessors()

    day, dag = datetime(1998, 6, 1, tzinfo=UTC), DAG("of_a_day", schedule=None)
    context = {"outlet_events": events, "logical_date": day, "run_id": "some run", "dag": dag}
    task.execute(cast("Context", context))

    assert events[ASSET].extra == {"as_of": "1998-06-02T00:00:00+00:00", "run_id": "some run"}


def test_a_data_fault_is_not_retried_and_says_why(tmp_path: Path) -> None:
    task = job(tmp_path, ENDING.format(reason="suite transactions: 7 of 9 rows", code=3))

    with pytest.raises(JobRefused) as failed:
        task.execute({})

    assert str(failed.value) == "suite transactions: 7 of 9 rows"


def test_another_fault_is_retried_and_says_why() -> None:
    fault = failure(1, "scoreline: error: Redis is away")

    assert isinstance(fault, JobFailed)
    assert str(fault) == "Redis is away"


def test_a_job_without_last_words_shows_its_output(tmp_path: Path) -> None:
    task = job(tmp_path, "raise ValueError('nobody caught this')")

    with pytest.raises(JobFailed, match="nobody caught this"):
        task.execute({})


def test_on_kill_ends_the_jvm_and_its_python(tmp_path: Path) -> None:
    task = job(tmp_path, STAYING, str(tmp_path / "note"))
    thread = threading.Thread(target=execute_and_fail, args=(task,))
    thread.start()
    started = processes(tmp_path / "note")

    task.on_kill()
    thread.join(10)

    gone, alive = psutil.wait_procs(started, timeout=10)
    assert (len(gone), alive, thread.is_alive()) == (2, [], False)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_a_task_killed_by_sigkill_takes_its_jvm_along(tmp_path: Path) -> None:
    application = tmp_path / "application.py"
    application.write_text(STAYING, "utf-8")
    worker = subprocess.Popen([sys.executable, "-c", WORKER, application, tmp_path / "note"])
    jvm, python = processes(tmp_path / "note")

    worker.send_signal(signal.SIGKILL)
    worker.wait()

    jvm.wait(20)
    python.kill()
