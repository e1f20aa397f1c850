"""A whole Scoreline in a folder of its own, as `make up` starts it, and what tests ask of it and do to it."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from infra.embedded.scheduler import Scheduler
from jobs.registry import resolve
from jobs.stream.live import LiveEvents
from serving.client import Client
from serving.clock import Clock
from tests.conftest import ROOT, free_port
from tests.jobs.shop import rows
from tests.project import Project, bits, scored

PIPELINE = "purchase_propensity"
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
        return str(await_that(lambda: self.state(run_id) if self.state(run_id) in ENDED else None))

    def state(self, run_id: str) -> str:
        return str(self.scheduler.ask("GET", f"/dags/{PIPELINE}/dagRuns/{quote(run_id)}")["state"])

    def airflow(self, *command: str) -> None:
        """Run Airflow's own command line."""
        program = Path(sys.executable).with_name("airflow")
        subprocess.run([program, *command], env=self.variables, check=True, cwd=ROOT, timeout=300)

    def of_backfill(self, days: list[date]) -> dict[str, str]:
        """Return the states of the runs that a backfill made for these days."""
        runs = (run for run in self.scheduler.runs(PIPELINE) if run["run_type"] == "backfill")
        found = {str(run["logical_date"])[:10]: str(run["state"]) for run in runs}
        return {day: state for day, state in found.items() if date.fromisoformat(day) in days}

    def happens(self, customer: str) -> datetime:
        """Let a customer buy something now, as a live event, and return when it arrived."""
        now = Clock().now()
        bought = rows((customer, "9.99"))
        today = pa.array([now.replace(hour=0, minute=0, second=0, microsecond=0)], pa.timestamp("us", "UTC"))
        bought = bought.set_column(bought.column_names.index("event_time"), "event_time", today)
        LiveEvents(f"{self.variables['SCORELINE_LAKE']}/events/transactions").append(bought, now)
        return now

    def differing(self, spark: SparkSession, folder: Path, days: list[date]) -> list[date]:
        """Return the days whose scores have other bits than a run alone gives them, from the same events."""
        registry = self.variables["SCORELINE_MLFLOW_URI"]
        alone, champion = Project(folder, spark, registry=registry), resolve(registry, PIPELINE, "champion")
        shutil.copytree(self.var / "lake" / "events", folder / "lake" / "events")
        found = []
        for day in days:
            run = scored(alone, champion, day)
            rows = alone.lake.read(f"scores/{PIPELINE}").where(run.partition)
            if bits(rows) != {key: score.tobytes() for key, score in self.table(run.as_of.date()).items()}:
                found.append(day)
        return found

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


def await_that(what: Callable[[], Any], seconds: float = 420, every: float = 0.5) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        time.sleep(every)
    raise TimeoutError(f"not within {seconds} s")


def embedded(command: str, var: Path) -> None:
    ports = {f"SCORELINE_{name}_PORT": str(free_port()) for name in ("REDIS", "MLFLOW", "AIRFLOW", "LOOKUP")}
    others = {name: value for name, value in os.environ.items() if not name.startswith("SCORELINE_")}
    # Two jobs at a time, so that runs of several dates are at work beside each other.
    variables = {**others, **ports, "SCORELINE_VAR": str(var), "SCORELINE_SPARK_SLOTS": "2"}
    subprocess.run([sys.executable, "-m", "infra.embedded", command], env=variables, cwd=ROOT, check=True, timeout=300)


def sourced(path: Path) -> dict[str, str]:
    """Return the environment of a shell that has sourced a file."""
    command = f". {shlex.quote(str(path))} && env -0"
    found = subprocess.run(["/bin/sh", "-c", command], check=True, capture_output=True, text=True).stdout
    return dict(line.split("=", 1) for line in found.split("\0") if "=" in line)


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
