"""A small lake of real purchases, and the page of recipes whose answers come from it.

`python -m tests.jobs.cookbook`, in a shell that sourced var/conf/toolchain.sh, makes the lake anew and writes its
answers into the page.
"""

import os
import re
import sys
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
from pyspark.sql import SparkSession

from infra.demo.land import FIRST_DAY, by_day
from jobs.analysts.connection import opened
from jobs.analysts.printed import cells
from jobs.ingest import ingest
from jobs.landing import days_between
from jobs.publication.publish import publish
from jobs.registry import ModelVersion
from jobs.run import Run
from jobs.score import score
from jobs.stream.replay import events_of_days
from jobs.tables import live_quarantine_table, live_scores_table
from serving.clock import Clock
from serving.store import Store
from tests.conftest import ROOT, free_port, redis_at
from tests.jobs.shop import NAME, streamed
from tests.project import Project
from tests.registered import register_small

PAGE = ROOT / "infra/docs/recipes.md"
# The days whose ends are scored: one with 60 days of purchases after it, and two in a row.
APRIL, MAY, JUNE = date(1998, 4, 30), date(1998, 5, 31), date(1998, 6, 1)
LAST = date(1998, 6, 30)
TENTH = "2"  # the last digit of their numbers
SPOILED = ["4712,1998-06-30,1,9.99", "00042,1998-06-30,0,9.99", "00052,1998-06-30,1,-5.00"]
RECIPE = re.compile(
    r"(## \d+\. (?P<question>.+?)\n.*?```sql\n)(?P<sql>.*?)(```\n\n)(?P<answer>(?:\|[^\n]*\n)*)", re.DOTALL
)


@dataclass(frozen=True)
class Recipe:
    """A question, its SQL, and the answer that the page has."""

    question: str
    sql: str
    answer: str


def at(day: date, hour: int) -> Clock:
    """Return a clock that shows an hour of a day, and goes on."""
    return Clock(datetime(day.year, day.month, day.day, hour, tzinfo=UTC) - datetime.now(UTC))


def lake_of_purchases(folder: Path, spark: SparkSession, url: str) -> Project:
    """Make a lake with all that an analyst asks about: dates, models, a restatement, fresh scores, rejected rows."""
    project = Project(folder, spark)
    _deliver(project, FIRST_DAY, APRIL)
    _deliver(project, APRIL + timedelta(days=1), MAY)
    _deliver(project, JUNE, JUNE)
    ingest(replace(project.run(JUNE, "load"), clock=at(JUNE + timedelta(days=1), 1)), [APRIL, MAY, JUNE])
    first = register_small(project.settings.mlflow_uri, folder / "report")
    for day in (APRIL, MAY, JUNE):
        run = _scored(project, day, first, at(day + timedelta(days=1), 2))
        if day != APRIL:
            assert publish(run, url) == "live"
    _stream(project, url, folder / "checkpoint")
    second = register_small(project.settings.mlflow_uri, folder / "report", seed=2)
    _scored(project, MAY, second, at(JUNE + timedelta(days=1), 15), "restated")
    _deliver(project, JUNE + timedelta(days=2), LAST, SPOILED)
    late = replace(project.run(LAST, "month"), clock=at(LAST + timedelta(days=1), 1))
    ingest(late, [JUNE + timedelta(days=1), LAST])
    return project


def _deliver(project: Project, first: date, last: date, more: list[str] | None = None) -> None:
    """Deliver the purchases of some days in one file of the last one."""
    project.deliver(last, [*bought(first, last), *(more or [])])


def bought(first: date, last: date) -> list[str]:
    """Return the purchases of some days, of a tenth of the customers."""
    known = by_day()
    return [row for day in days_between(first, last) for row in known[day] if row.startswith(TENTH, 4)]


def _scored(project: Project, day: date, model: ModelVersion, clock: Clock, run_id: str = "daily") -> Run:
    run = replace(project.run(day, run_id), clock=clock)
    score(run, model.version, model.digest)
    return run


def _stream(project: Project, url: str, checkpoint: Path) -> None:
    """Let the purchases of the day after come live, in the morning of that day."""
    day = JUNE + timedelta(days=1)
    for table in (live_scores_table(NAME), live_quarantine_table(NAME)):
        project.lake.create(table)
    _deliver(project, day, day)
    now = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    with Store(url) as store, streamed(project, store, now, checkpoint) as shop:
        events = events_of_days(project.run(day), day, day)
        shop.live.append(events.drop_columns(["day"]), now - timedelta(hours=1))
        shop.settle()


def recipes(page: str) -> list[Recipe]:
    """Return the recipes of the page."""
    return [Recipe(found["question"], found["sql"], found["answer"]) for found in RECIPE.finditer(page)]


def answer(connection: duckdb.DuckDBPyConnection, sql: str) -> str:
    """Return the answer to a recipe as the page has it: a table of Markdown."""
    result = connection.execute(sql)
    names, kinds = ([str(column[place]) for column in result.description] for place in (0, 1))
    rows = cells(result.fetchall(), kinds)
    return "".join(f"| {' | '.join(row)} |\n" for row in [names, ["---"] * len(names), *rows])


def rewritten(page: str, connection: duckdb.DuckDBPyConnection) -> str:
    """Return the page with the answers of a lake."""
    return RECIPE.sub(lambda found: f"{found[1]}{found['sql']}{found[4]}{answer(connection, found['sql'])}", page)


def main() -> None:
    """Make the lake, and write its answers into the page."""
    os.environ["PYSPARK_PYTHON"] = sys.executable
    from jobs.session import spark_session

    spark, port = spark_session("recipes"), free_port()
    with tempfile.TemporaryDirectory() as name, redis_at(port, Path(name)):
        project = lake_of_purchases(Path(name) / "a project", spark, f"redis://127.0.0.1:{port}/0")
        with opened(project.settings, [project.pipeline()]) as connection:
            PAGE.write_text(rewritten(PAGE.read_text(), connection))
    spark.stop()


if __name__ == "__main__":
    main()
