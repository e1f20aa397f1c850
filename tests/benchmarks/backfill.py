"""Many days in one job, against the same jobs day by day: as processes of their own, and in one warm session.

What is compared is scoring, per date: features, suites, model, tables. A run of the DAG also ingests and publishes, as
a range does once: that would count for the range, and is left out.
"""

import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import count

from jobs.registry import ModelVersion
from tests.benchmarks.population import PIPELINE
from tests.benchmarks.result import Result, compared_small
from tests.benchmarks.shop import LAST_DAY, Shop, variables
from tests.benchmarks.stage import Stage
from tests.project import Project, scored
from tests.registered import register_small

WARMING = 3
UNIT = "s/date"
KNOWN = datetime(1998, 2, 1, tzinfo=UTC)  # what the model knows, before all that is scored


def ranges(stage: Stage) -> Iterator[Result]:
    """Seconds a date of a range with its cold start, of cold daily jobs, and of daily ones in one warm Spark."""
    shop = Shop(stage.folder / "shop-1", 1)
    last = LAST_DAY - timedelta(days=1)  # the shop has scores of its last evening
    first = last - timedelta(days=stage.scale.dates - 1)
    daily = shop.opened(stage.spark)
    model = register_small(daily.settings.mlflow_uri, stage.folder / "report", training_as_of=KNOWN)
    days = (first + timedelta(days=number) for number in count())
    stage.say("warming up")
    for _ in range(WARMING):
        warm(daily, model, next(days))
    whole, cold, one_by_one = [], [], []
    for turn in range(stage.scale.cold):
        whole.append(stage.apart(partial(ranged, stage, daily, (first, last))) / stage.scale.dates)
        cold.append(stage.apart(lambda: job(stage, daily, "score", "--day", str(next(days)))))
        one_by_one += [stage.apart(lambda: warm(daily, model, next(days))) for _ in range(WARMING)]
        found = f"range {whole[-1]:.2f}, a cold job {cold[-1]:.1f}, a warm one {one_by_one[-1]:.1f} {UNIT}"
        stage.say(f"round {turn + 1}: {found}")
    yield compared_small("backfill_range_speedup", UNIT, whole, "a cold score job a date", cold)
    yield compared_small("backfill_range_speedup_warm", UNIT, whole, "score jobs in one warm session", one_by_one)


def ranged(stage: Stage, project: Project, days: tuple[date, date]) -> float:
    """Score the days from the first to the last by the range job, where there is no score yet; return its seconds."""
    fresh = replace(project, folder=project.folder.with_name("range"))
    shutil.rmtree(fresh.folder, ignore_errors=True)
    shutil.copytree(f"{project.settings.lake}/events", f"{fresh.settings.lake}/events")
    return job(stage, fresh, "backfill", "--from", str(days[0]), "--to", str(days[1]))


def job(stage: Stage, project: Project, name: str, *options: str) -> float:
    """Run a job as a process of its own, and return the seconds that it took."""
    start = time.monotonic()
    command = [sys.executable, "-m", "jobs", name, PIPELINE, *options]
    stage.finish(name, stage.start(name, command, **variables(project)))
    return time.monotonic() - start


def warm(project: Project, model: ModelVersion, day: date) -> float:
    """Score a day in the session that is there, and return the seconds that it took."""
    start = time.monotonic()
    scored(project, model, day, "benchmark")
    return time.monotonic() - start
