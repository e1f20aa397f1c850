"""What commands begin with: the pipeline that they are for, and a run with its Spark session."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime
from importlib import import_module
from typing import TYPE_CHECKING

import click

from jobs.spec import Pipeline, Settings, load_pipeline, settings

if TYPE_CHECKING:
    from jobs.run import Run

PIPELINE = click.argument("pipeline")
RUN_ID = click.option("--run-id", default="manual", show_default=True, help="Who asks; it is written on every row.")
DAY = click.DateTime(["%Y-%m-%d"])
RESTATE = click.option(
    "--restate/--no-restate",
    help="Let late data in: read the newest version of the tables in place of the recorded one.",
)
DIGEST = click.option("--model-digest", default="", help="SHA-256 that the artefact of that version must have.")
_WISH = re.compile(r"champion|recorded|[1-9][0-9]*")


def instant(_context: click.Context, _parameter: click.Parameter, value: str | None) -> datetime | None:
    """Return the instant that ISO 8601 text names; without an offset it is UTC."""
    if value is None:
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError as fault:
        raise click.BadParameter(f"'{value}' is no instant; write such as 1998-06-02T09:30:00Z") from fault
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def _wish(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not _WISH.fullmatch(value):
        raise click.BadParameter(f"'{value}' is neither champion, nor recorded, nor the number of a version")
    return value


MODEL = click.option(
    "--model",
    default="champion",
    show_default=True,
    callback=_wish,
    help="champion: what the alias names now; recorded: what scored that date last; or the number of a version.",
)


@contextmanager
def started_run(pipeline: str, day: date, run_id: str, *modules: str) -> "Iterator[Run]":
    """Give a run with its Spark session, and stop that at the end.

    `modules` are what the job will import: Python reads them while Java starts, which saves some seconds of a job.
    """
    from jobs.lake import Lake
    from jobs.run import Run
    from jobs.session import spark_session
    from serving.settings import settings as serving_settings

    declared, found = declared_pipeline(pipeline)
    clock = serving_settings().clock  # before Spark: a wrong setting should not cost a cold start
    with ThreadPoolExecutor(1) as beside:
        beside.map(import_module, modules)
        spark = spark_session(f"{pipeline} {day}")
    try:
        yield Run(declared, day, run_id, Lake(spark, found.lake), found, clock)
    finally:
        spark.stop()


def require_version(model: str, digest: str) -> None:
    """Refuse a digest beside what names no version by its number."""
    if digest and not model.isdecimal():
        raise click.UsageError(f"--model-digest is that of one version: give --model NUMBER with it, not {model}")


def declared_pipeline(pipeline: str) -> tuple[Pipeline, Settings]:
    """Return the declaration of a pipeline, and the settings."""
    found = settings()
    return load_pipeline(found.pipelines, pipeline), found
