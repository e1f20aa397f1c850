"""The summary: what one run of one day did, from the quality table alone."""

import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from jobs.errors import DataFault
from jobs.spec import Pipeline, Settings, load_pipeline
from jobs.summary import summarise
from tests.conftest import ROOT

DAY = date(1998, 6, 1)
NOW = datetime(1998, 6, 2, 3, tzinfo=UTC)
STEPS = ("ingest", "score", "publish")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(lake=f"{tmp_path}/a lake/")


@pytest.fixture
def pipeline() -> Pipeline:
    return load_pipeline(ROOT / "dags" / "pipelines", "purchase_propensity")


def record(settings: Settings, step: str, rows: int, day: date = DAY, run_id: str = "manual", attempt: int = 0) -> None:
    """Put a count and two verdicts of a step on record, as a run of `day` would."""
    as_of = datetime.combine(day + timedelta(days=1), datetime.min.time(), UTC)
    said = [("", "rows", True, str(rows)), ("s", "a", True, ""), ("s", "b", rows > 5, "")]
    table = pa.table(
        {
            "as_of": pa.array([as_of] * 3, pa.timestamp("us", tz="UTC")),
            "step": [step] * 3,
            **{
                name: [row[place] for row in said]
                for place, name in enumerate(("suite", "metric", "success", "observed"))
            },
            "run_id": [run_id] * 3,
            "measured_at": pa.array([NOW + timedelta(hours=attempt)] * 3, pa.timestamp("us", tz="UTC")),
        }
    )
    write_deltalake(settings.table("quality/purchase_propensity"), table, mode="append")


def test_each_step_has_a_line(settings: Settings, pipeline: Pipeline) -> None:
    for rows, step in enumerate(STEPS, 5):
        record(settings, step, rows)
    assert summarise(settings, pipeline, DAY, "manual").splitlines() == [
        "purchase_propensity 1998-06-01, run manual",
        "  ingest: rows 5, 1 of 2 expectations held",
        "  score: rows 6, 2 of 2 expectations held",
        "  publish: rows 7, 2 of 2 expectations held",
    ]


def test_neither_another_day_nor_another_run_counts(settings: Settings, pipeline: Pipeline) -> None:
    for step in STEPS:
        record(settings, step, 7)
        record(settings, step, 8, DAY + timedelta(days=1), attempt=1)
        record(settings, step, 9, run_id="other", attempt=2)
    assert summarise(settings, pipeline, DAY, "manual").count("rows 7") == 3
    assert summarise(settings, pipeline, DAY + timedelta(days=1), "manual").count("rows 8") == 3
    with pytest.raises(DataFault, match=r"1998-06-03: ingest left no record of run manual; .*--day 1998-06-03"):
        summarise(settings, pipeline, DAY + timedelta(days=2), "manual")


def test_the_last_attempt_of_a_step_counts(settings: Settings, pipeline: Pipeline) -> None:
    for attempt, rows in enumerate((9, 6)):
        for step in STEPS:
            record(settings, step, rows, attempt=attempt)
    assert summarise(settings, pipeline, DAY, "manual").count("rows 6") == 3


def test_a_step_without_a_record_is_named(settings: Settings, pipeline: Pipeline) -> None:
    record(settings, "ingest", 7)
    with pytest.raises(DataFault, match=r"score left no record of run manual; .*`scoreline score purchase_propensity"):
        summarise(settings, pipeline, DAY, "manual")


def test_before_any_run_it_says_what_to_run(settings: Settings, pipeline: Pipeline) -> None:
    with pytest.raises(DataFault, match=r"quality/purchase_propensity does not exist.*run `scoreline ingest"):
        summarise(settings, pipeline, DAY, "manual")


def test_the_command_ends_well_every_time(settings: Settings) -> None:
    """Threads of libraries may outlive what they were needed for, and abort a process at its end."""
    for step in STEPS:
        for attempt in range(4):  # several files
            record(settings, step, 7, attempt=attempt)
    command = [sys.executable, "-m", "jobs", "summary", "purchase_propensity", "--day", str(DAY)]
    for _ in range(6):
        done = subprocess.run(
            command, env={**os.environ, "SCORELINE_LAKE": settings.lake}, check=False, capture_output=True, cwd=ROOT
        )
        assert (done.returncode, done.stderr) == (0, b"")
