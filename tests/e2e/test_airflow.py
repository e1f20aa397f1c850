"""The whole path on real data, by a real scheduler: a good day goes live, a bad one leaves what was live alone."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import psutil
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable

from infra.demo.land import FIRST_DAY, land
from infra.embedded.scheduler import Scheduler
from serving.client import Client
from serving.clock import Clock
from serving.store import Store
from serving.stream import StreamRecord
from tests.conftest import ROOT, free_port
from tests.registered import register_small

PIPELINE = "purchase_propensity"
WATCH = f"{PIPELINE}_stream"
FIRST, SECOND, THIRD, FOURTH, FIFTH = (date(1998, 6, day) for day in range(1, 6))
ENDED = ("success", "failed")


@dataclass(frozen=True)
class Site:
    """A running Scoreline in a folder of its own."""

    var: Path
    variables: dict[str, str]

    def scoreline(self, *command: str) -> None:
        subprocess.run([sys.executable, "-m", "jobs", *command], env=self.variables, check=True, cwd=ROOT, timeout=300)

    @property
    def lookup(self) -> str:
        return f"http://127.0.0.1:{self.variables['SCORELINE_PORT']}"

    @cached_property
    def scheduler(self) -> Scheduler:
        state = json.loads((self.var / "run" / "runtime.json").read_text())
        passwords = json.loads((self.var / "airflow" / "passwords.json").read_text())
        return Scheduler(f"http://127.0.0.1:{state['ports']['airflow']}", passwords["admin"])

    def trigger(self, day: date) -> str:
        """Let the scheduler run the DAG for a day, and return the run's id."""
        run_id = f"test__{day}"
        body = {"logical_date": f"{day}T00:00:00Z", "dag_run_id": run_id}
        self.scheduler.ask("POST", f"/dags/{PIPELINE}/dagRuns", json=body)
        return run_id

    def states(self, run_id: str) -> dict[str, str]:
        return {task["task_id"]: task["state"] for task in self.scheduler.tasks(PIPELINE, run_id)}

    def ended(self, run_id: str) -> str:
        """Wait for a run's end, and return its state."""
        return str(await_that(lambda: self._state(run_id) if self._state(run_id) in ENDED else None))

    def _state(self, run_id: str) -> str:
        return str(self.scheduler.ask("GET", f"/dags/{PIPELINE}/dagRuns/{quote(run_id)}")["state"])

    def log(self, run_id: str, task: str) -> str:
        folder = self.var / "logs" / "airflow" / f"dag_id={PIPELINE}" / f"run_id={run_id}" / f"task_id={task}"
        return "\n".join(path.read_text() for path in sorted(folder.glob("attempt=*.log")))

    def table(self, as_of: date) -> dict[str, np.float32]:
        scores = DeltaTable(str(self.var / "lake" / "scores" / PIPELINE)).to_pyarrow_dataset()
        rows = scores.to_table(columns=["key", "score"], filter=pc.field("as_of_date") == as_of)
        return dict(zip(rows["key"].to_pylist(), rows["score"].to_numpy(), strict=True))

    def served(self, keys: list[str]) -> dict[str, Any]:
        with Client(self.lookup) as client:
            return {answer.key: answer for answer in client.scores(PIPELINE, keys)}


def await_that(what: Callable[[], Any], seconds: float = 420) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        time.sleep(0.5)
    raise TimeoutError(f"not within {seconds} s")


def embedded(command: str, var: Path) -> None:
    ports = {f"SCORELINE_{name}_PORT": str(free_port()) for name in ("REDIS", "MLFLOW", "AIRFLOW", "LOOKUP")}
    others = {name: value for name, value in os.environ.items() if not name.startswith("SCORELINE_")}
    variables = {**others, **ports, "SCORELINE_VAR": str(var)}
    subprocess.run([sys.executable, "-m", "infra.embedded", command], env=variables, cwd=ROOT, check=True, timeout=300)


def sourced(path: Path) -> dict[str, str]:
    """Return the environment of a shell that has sourced a file."""
    command = f". {shlex.quote(str(path))} && env -0"
    found = subprocess.run(["/bin/sh", "-c", command], check=True, capture_output=True, text=True).stdout
    return dict(line.split("=", 1) for line in found.split("\0") if "=" in line)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """All services, 17 months of history, five days landed, a champion."""
    var = tmp_path_factory.mktemp("whole") / "a var"
    try:
        embedded("up", var)
        site = Site(var, sourced(var / "env"))
        land(var / "landing", FIRST_DAY, FIFTH)
        site.scoreline("ingest", PIPELINE, "--from", str(FIRST_DAY), "--to", "1998-05-31", "--run-id", "history")
        register_small(site.variables["SCORELINE_MLFLOW_URI"], var / "report")
        await_that(lambda: site.scheduler.knows(PIPELINE))
        site.scheduler.unpause(PIPELINE)
        yield site
        site.scheduler.client.close()
    finally:
        embedded("down", var)


@pytest.fixture(scope="module")
def first(site: Site) -> str:
    """The id of the first day's run, which has succeeded."""
    run_id = site.trigger(FIRST)
    state = site.ended(run_id)
    assert state == "success", {
        task: site.log(run_id, task)[-1500:] for task, was in site.states(run_id).items() if was == "failed"
    }
    return run_id


def test_every_known_customer_has_one_score_and_the_same_one_over_http(site: Site, first: str) -> None:
    table = site.table(SECOND)
    events = DeltaTable(str(site.var / "lake" / "events" / "transactions")).to_pyarrow_table(columns=["customer_id"])
    assert table.keys() == set(events["customer_id"].to_pylist())
    assert len(table) == 23_570
    served = site.served(list(table))
    different = [key for key, score in table.items() if np.float32(served[key].score) != score]
    assert not different
    assert {answer.source for answer in served.values()} == {"batch"}


@pytest.mark.timeout(900)
def test_a_bad_day_fails_by_name_and_what_was_live_answers_on(site: Site, first: str) -> None:
    keys = list(site.table(SECOND))[:500]
    before = site.served(keys)
    path = site.var / "landing" / "transactions" / f"date={SECOND}" / "transactions.csv"
    good = path.read_text()
    path.write_text(good.replace("amount", "total", 1))
    run_id = site.trigger(SECOND)
    assert site.ended(run_id) == "failed"
    states = site.states(run_id)
    assert (states["ingest"], states["score"]) == ("failed", "upstream_failed")
    assert "column 'amount' is missing, column 'total' is not declared" in site.log(run_id, "ingest")
    after = site.served(keys)
    assert all((after[key].score, after[key].generation) == (before[key].score, before[key].generation) for key in keys)
    path.write_text(good)


def test_a_stream_that_is_killed_is_started_again_by_its_dag(site: Site, first: str) -> None:
    """`make up` started it; it is known to be dead once it has been silent for a while."""
    with Store(site.variables["SCORELINE_REDIS_URL"]) as store:

        def alive() -> StreamRecord | None:
            record = store.stream(PIPELINE)
            return record if record and record.is_alive(Clock().microseconds()) else None

        before = await_that(alive)
        killed = psutil.Process(int(before.process.split()[0]))
        for process in (killed, *killed.children(recursive=True)):
            process.kill()
        await_that(lambda: alive() is None)
        site.scheduler.unpause(WATCH)
        run = await_that(lambda: next((run for run in site.scheduler.runs(WATCH) if run["state"] in ENDED), None))
        assert run["state"] == "success"
        assert await_that(alive).process != before.process


def submitted(site: Site, step: str) -> psutil.Process | None:
    """Return the process of a running job of this site: the Python driver, which the JVM of spark-submit started."""
    for process in psutil.process_iter(["cmdline", "name"]):
        command = process.info["cmdline"] or []
        if not process.info["name"].startswith("python") or step not in command:
            continue  # spark-submit and its JVM carry the same words
        if any(part.endswith("__main__.py") for part in command) and is_of(site, process):
            return process
    return None


def tree_of(driver: psutil.Process) -> list[psutil.Process]:
    """Return a task's processes: the driver, its JVM, Airflow's task and the task's supervisor, never the scheduler."""
    java, task, supervisor = driver.parents()[:3]
    assert "java" in java.name()
    assert all("airflow worker" in " ".join(each.cmdline()) for each in (task, supervisor))
    return [driver, java, task, supervisor]


def is_of(site: Site, process: psutil.Process) -> bool:
    """Tell whether a process works on this site's tables, and not on those of another Scoreline of this machine."""
    try:
        return bool(process.environ().get("SCORELINE_LAKE") == site.variables["SCORELINE_LAKE"])
    except psutil.Error:
        return False


def ended(process: psutil.Process) -> bool:
    return not process.is_running()


@pytest.mark.soak
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(
    ("day", "killed"),
    [(THIRD, slice(0, 1)), (FOURTH, slice(2, 3)), (FIFTH, slice(0, 4))],
    ids=["the driver alone", "the task's process alone", "the whole tree"],
)
def test_a_task_killed_in_each_step_is_retried_to_the_same_end(
    site: Site, first: str, day: date, killed: slice
) -> None:
    """The scheduler retries what was killed, and the day ends as if nothing had happened."""
    run_id = site.trigger(day)
    for step in ("ingest", "score", "publish"):
        driver: psutil.Process = await_that(partial(submitted, site, step))
        time.sleep(5)
        for victim in tree_of(driver)[killed]:
            victim.send_signal(signal.SIGKILL)
        await_that(partial(ended, driver))
    assert site.ended(run_id) == "success"
    table = site.table(day + timedelta(days=1))
    served = site.served(list(table))
    assert not [key for key, score in table.items() if np.float32(served[key].score) != score]
