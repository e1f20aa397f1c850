"""Any process killed at any moment, and the task run again: the same end state as one clean run."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import psutil
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from jobs.ingest import ingest
from jobs.landing import days_between
from jobs.score import score
from serving.head import Head
from serving.store import Store
from tests.conftest import ROOT
from tests.project import Project, purchases
from tests.registered import register_small

FIRST, DAY = date(1998, 5, 30), date(1998, 6, 1)
STEPS = ("ingest", "score", "publish")
SAME = {"ingest": ("event_id",), "score": ("key", "score", "as_of", "model_digest", "events_version", "run_id")}


@dataclass
class Site:
    """A project whose jobs run as Spark runs them: a process each, by spark-submit."""

    project: Project
    redis_url: str
    other_url: str = ""

    def start(self, step: str) -> subprocess.Popen[bytes]:
        settings = self.project.settings
        submit = Path(sys.executable).parent / "spark-submit"
        command = [str(submit), str(ROOT / "jobs" / "__main__.py"), step, "purchase_propensity", "--day", str(DAY)]
        variables = {
            "SCORELINE_LAKE": settings.lake,
            "SCORELINE_LANDING": settings.landing,
            "SCORELINE_REPORTS": str(settings.reports),
            "SCORELINE_MLFLOW_URI": settings.mlflow_uri,
            "SCORELINE_REDIS_URL": self.redis_url,
            "PYTHONPATH": str(ROOT),
            "PYSPARK_PYTHON": sys.executable,
        }
        return subprocess.Popen(
            command,
            env={**os.environ, **variables},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def clean(self, step: str) -> None:
        process = self.start(step)
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said.decode()[-2000:]

    def killed(self, step: str, after_s: float, *, tree: bool) -> None:
        """Kill the job's first process alone, or all that it started, some time after its start."""
        process = self.start(step)
        time.sleep(after_s)
        victims = [psutil.Process(process.pid)] if process.poll() is None else []
        family = victims[0].children(recursive=True) if victims else []
        for victim in [*victims, *(family if tree else [])]:
            if victim.is_running():
                victim.send_signal(signal.SIGKILL)
        process.communicate()
        psutil.wait_procs(family, timeout=120)

    def state(self) -> dict[str, object]:
        """What anybody can see: rows by content, and what is live."""
        found: dict[str, object] = {}
        for step, table in (("ingest", "events/transactions"), ("score", "scores/purchase_propensity")):
            rows = DeltaTable(self.project.lake.path(table)).to_pyarrow_table(columns=list(SAME[step])).to_pylist()
            text = "\n".join(sorted(str(sorted(row.items())) for row in rows))
            found[table] = (len(rows), hashlib.sha256(text.encode()).hexdigest())
        with Store(self.redis_url) as store:
            head = store.head("purchase_propensity")
        found["live"] = None if head is None else visible(head)
        return found


def visible(head: Head) -> tuple[object, ...]:
    return head.as_of, head.rows, head.checksum, head.model


@pytest.fixture
def site(tmp_path: Path, spark: SparkSession, redis_url: str) -> Site:
    """Two days of history and one day to run, on a Redis without generations."""
    project = Project(tmp_path / "a project", spark)
    for number, day in enumerate(days_between(FIRST, DAY)):
        project.deliver(day, purchases(day, 60, first=1 + 40 * number))
    history = days_between(FIRST, DAY - timedelta(days=1))
    ingest(project.run(history[-1], "history"), history)
    model = register_small(project.settings.mlflow_uri, project.folder / "report")
    score(project.run(history[-1], "history"), model.version, model.digest)
    databases = [f"{redis_url.removesuffix('/0')}/{number}" for number in (4, 5)]
    for url in databases:
        with Store(url) as store:
            store._redis.flushdb()
    return Site(project, *databases)


def kill_and_rerun(site: Site, seconds: dict[str, float], *, tree: bool) -> dict[str, object]:
    for step in STEPS:
        site.killed(step, seconds[step], tree=tree)
        site.clean(step)
    return site.state()


def undisturbed(site: Site, folder: Path) -> dict[str, object]:
    """Return the end state of one clean run, of a copy of the project, on a Redis database of its own."""
    shutil.copytree(site.project.folder, folder / "a copy")
    copy = replace(site.project, folder=folder / "a copy", registry=site.project.settings.mlflow_uri)
    twin = Site(copy, site.other_url)
    for step in STEPS:
        twin.clean(step)
    state = twin.state()
    assert state["live"] is not None
    return state


def test_a_killed_step_run_again_ends_as_a_clean_run(site: Site, tmp_path: Path) -> None:
    """Each step killed once as a whole tree, in the middle of its work."""
    expected = undisturbed(site, tmp_path)
    assert kill_and_rerun(site, {"ingest": 9, "score": 11, "publish": 9}, tree=True) == expected


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("tree", [True, False], ids=["the whole tree", "the process alone"])
@pytest.mark.parametrize("after_s", [5, 8, 11, 14])
def test_killed_at_any_moment(site: Site, tmp_path: Path, after_s: float, *, tree: bool) -> None:
    expected = undisturbed(site, tmp_path)
    assert kill_and_rerun(site, dict.fromkeys(STEPS, after_s), tree=tree) == expected
