"""Any process killed at any moment, and the task run again: the same end state as one clean run."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import psutil
import pytest
import redis
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from jobs.ingest import ingest
from jobs.landing import days_between
from jobs.publication.publish import publish
from jobs.registry import resolve
from jobs.score import score
from serving.head import Head
from serving.store import Store
from tests.conftest import ROOT
from tests.project import Project, purchases
from tests.registered import register_small

FIRST, DAY = date(1998, 5, 30), date(1998, 6, 1)
STEPS = ("ingest", "score", "publish")
SEEN = {
    "events/transactions": ("event_id",),
    "quarantine/transactions": ("event_id", "reasons", "raw"),
    "features/purchase_propensity": ("key", "as_of", "recency_days", "spent_total"),
    "scores/purchase_propensity": ("key", "score", "as_of", "model_digest", "events_version", "run_id"),
}


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
        """Run a step undisturbed, in the tests' own Spark: only what is killed must be a process of its own."""
        run = self.project.run(DAY, "manual")
        if step == "ingest":
            ingest(run, [DAY])
        elif step == "score":
            champion = resolve(run.settings.mlflow_uri, run.pipeline.model.name, "champion")
            score(run, champion.version, champion.digest)
        else:
            assert publish(run, self.redis_url) == "live"

    def killed(self, step: str, now: Callable[[], bool], *, tree: bool) -> None:
        """Kill the job's first process alone, or all that it started, as soon as `now` says so."""
        process = self.start(step)
        await_true(lambda: now() or process.poll() is not None)
        family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        for victim in [process, *(family if tree else [])]:
            with suppress(psutil.NoSuchProcess):
                victim.send_signal(signal.SIGKILL)
        process.communicate()
        psutil.wait_procs(family, timeout=120)
        assert process.returncode == -signal.SIGKILL, f"{step} had ended before it was killed"

    def in_the_middle(self, step: str) -> bool:
        """Tell whether a step is at work: it has staged something, or written blocks that are not live yet."""
        if step != "publish":
            return any((self.project.folder / "lake/staging/purchase_propensity").glob(f"{step}*/*/*/*/*.parquet"))
        with redis.Redis.from_url(self.redis_url) as raw:
            return any(True for _ in raw.scan_iter(match="scoreline:{purchase_propensity:*"))

    def state(self) -> dict[str, object]:
        """What anybody can see: rows by content, and what is live."""
        found: dict[str, object] = {}
        for table, columns in SEEN.items():
            rows = DeltaTable(self.project.lake.path(table)).to_pyarrow_table(columns=list(columns)).to_pylist()
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
        project.deliver(day, [*purchases(day, 60, first=1 + 40 * number), f"x,{day},1,1.00"])
    history = days_between(FIRST, DAY - timedelta(days=1))
    ingest(project.run(history[-1], "history"), history)
    model = register_small(project.settings.mlflow_uri, project.folder / "report")
    score(project.run(history[-1], "history"), model.version, model.digest)
    databases = [f"{redis_url.removesuffix('/0')}/{number}" for number in (4, 5)]
    for url in databases:
        with Store(url) as store:
            store.ask("FLUSHDB")
    return Site(project, *databases)


def _is_past(moment: float) -> bool:
    return time.monotonic() > moment


def await_true(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def undisturbed(site: Site, folder: Path) -> dict[str, object]:
    """Return the end state of one clean run, of a copy of the project, on a Redis database of its own."""
    shutil.copytree(site.project.folder, folder / "a copy")
    copy = replace(site.project, folder=folder / "a copy", registry=site.project.settings.mlflow_uri)
    twin = Site(copy, site.other_url)
    for step in STEPS:
        twin.clean(step)
    return twin.state()


def test_a_killed_step_run_again_ends_as_a_clean_run(site: Site, tmp_path: Path) -> None:
    """Each step killed once as a whole tree, in the middle of its work."""
    expected = undisturbed(site, tmp_path)
    for step in STEPS:
        site.killed(step, partial(site.in_the_middle, step), tree=True)
        site.clean(step)
    assert site.state() == expected


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("tree", [True, False], ids=["the whole tree", "the process alone"])
def test_killed_at_any_moment(site: Site, tmp_path: Path, *, tree: bool) -> None:
    """Each step killed five times, at moments drawn from all its time, before it is let through."""
    expected, chance = undisturbed(site, tmp_path), random.Random(f"moments {tree}")  # noqa: S311  reason: the same moments each time
    for step in STEPS:
        for _ in range(5):
            moment = time.monotonic() + chance.uniform(2, 12)
            with suppress(AssertionError):  # a step that ended before its moment is as good as any
                site.killed(step, partial(_is_past, moment), tree=tree)
        site.clean(step)
    assert site.state() == expected
