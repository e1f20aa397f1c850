"""A second pipeline on another data set is new files only, from landing files to the lookup."""

import random
from datetime import UTC, date, datetime, time
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from dags.build import build
from jobs.features import with_validity
from jobs.ingest import ingest
from jobs.lake import Lake
from jobs.landing import days_between
from jobs.publication.publish import publish
from jobs.registry import resolve
from jobs.run import Run
from jobs.score import score
from jobs.spec import Settings, load_pipeline
from jobs.training import train
from serving.client import Client
from serving.clock import Clock
from tests.serving.conftest import service_at

FIRST, DAY = date(2024, 1, 1), date(2024, 3, 15)
PIPELINE = "charger_fault"

FILES = {
    "dags/pipelines/charger_fault.yaml": """
name: charger_fault
description: How likely a charging station reports a fault within a week; for planning the service rounds.
owner: field-service
entity_key: station_id
schedule:
  start_date: 2024-03-15
  end_date: 2024-04-30
sources:
  sessions:
    landing: sessions/{day}.csv
    first_day: 2024-01-01
    columns: {station_id: string, ended_at: timestamp, kwh: double, failed: boolean}
    event_time: ended_at
    suite: sessions
  stations:
    kind: dimension
    landing: stations/{day}.csv
    first_day: 2024-01-01
    columns: {station_id: string, model: string}
    suite: stations
label: {horizon_days: 7}
training: {first_as_of: 2024-01-15, every_days: 7, calibration_days: 14, test_days: 14}
model: {name: charger_fault}
fallback: {score: 0.25}
""",
    "jobs/sql/charger_fault/population.sql": """
SELECT DISTINCT e.station_id AS key, a.as_of FROM as_ofs a
JOIN events e ON e.event_time < a.as_of AND e.arrived_at <= a.as_of
""",
    "jobs/sql/charger_fault/features.sql": """
SELECT s.key, s.as_of,
  CAST(COUNT(e.event_id) AS DOUBLE) AS sessions_28d,
  CAST(COUNT_IF(e.failed) AS DOUBLE) AS faults_28d,
  CAST(CAST(SUM(CAST(e.kwh AS DECIMAL(18, 3))) AS DECIMAL(18, 3)) AS DOUBLE) AS kwh_28d,
  CAST(MAX(CASE WHEN d.model = 'B' THEN 1 ELSE 0 END) AS DOUBLE) AS is_model_b
FROM spine s
LEFT JOIN events e ON e.station_id = s.key AND e.event_time < s.as_of AND e.arrived_at <= s.as_of
  AND e.event_time >= s.as_of - INTERVAL '28' DAY
LEFT JOIN stations d ON d.station_id = s.key AND d.valid_from <= s.as_of AND s.as_of < d.valid_to
GROUP BY s.key, s.as_of
""",
    "jobs/sql/charger_fault/labels.sql": """
SELECT s.key, s.as_of, CAST(COUNT_IF(e.failed) > 0 AS INT) AS label FROM spine s
LEFT JOIN events e ON e.station_id = s.key AND e.event_time >= s.as_of
  AND e.event_time < timestampadd(DAY, :horizon_days, s.as_of)
GROUP BY s.key, s.as_of
""",
    "expectations/suites/charger_fault/sessions.yaml": """
- type: expect_column_values_to_be_null
  kwargs: {column: parse_fault}
- type: expect_column_values_to_be_between
  kwargs: {column: kwh, min_value: 0, max_value: 500}
""",
    "expectations/suites/charger_fault/stations.yaml": """
- type: expect_column_values_to_be_null
  kwargs: {column: parse_fault}
- type: expect_column_values_to_be_in_set
  kwargs: {column: model, value_set: [A, B]}
""",
    "expectations/suites/charger_fault/features.yaml": """
- type: expect_column_values_to_not_be_null
  kwargs: {column: is_model_b}
""",
    "expectations/suites/charger_fault/scores.yaml": """
- type: expect_column_values_to_be_between
  kwargs: {column: score, min_value: 0, max_value: 1}
""",
}


def write_project(root: Path) -> None:
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.lstrip())


def deliver(landing: Path) -> None:
    """Sixty stations; those of model B fail more often; each day tells of all stations again."""
    chance = random.Random(7)  # noqa: S311  reason: a small data set, not a secret
    models = {f"S-{number:03d}": "AB"[number % 2] for number in range(60)}
    for day in days_between(FIRST, DAY):
        rows = ["station_id,ended_at,kwh,failed"]
        for station, model in models.items():
            failed = chance.random() < (0.05 if model == "A" else 0.2)
            rows.append(f"{station},{day}T{chance.randrange(24):02d}:15:00Z,{chance.randrange(800) / 10},{failed}")
        put(landing / "sessions" / f"{day}.csv", rows)
        put(
            landing / "stations" / f"{day}.csv",
            ["station_id,model", *(f"{name},{model}" for name, model in models.items())],
        )


def put(path: Path, rows: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n")


@pytest.fixture
def run(tmp_path: Path, spark: SparkSession) -> Run:
    write_project(tmp_path / "project")
    deliver(tmp_path / "landing")
    settings = Settings(
        project=tmp_path / "project",
        lake=str(tmp_path / "lake"),
        landing=str(tmp_path / "landing"),
        reports=tmp_path / "reports",
        mlflow_uri=f"sqlite:///{tmp_path}/mlflow.db",
    )
    pipeline = load_pipeline(settings.pipelines, PIPELINE)
    return Run(pipeline, DAY, "second", Lake(spark, settings.lake), settings, Clock())


def test_new_files_alone_make_a_pipeline(run: Run, redis_url: str) -> None:
    ingest(run, days_between(FIRST, DAY))
    changes = with_validity(run.lake.read("dimensions/stations"), run.pipeline.entity_key)
    assert changes.count() == 60, "a snapshot that says nothing new is no change"
    train(run.lake.spark, run.pipeline, run.settings, datetime.combine(DAY, time(), UTC))
    model = resolve(run.settings.mlflow_uri, PIPELINE, "champion")
    score(run, model.version, model.digest)
    assert publish(run, redis_url) == "live"
    table = {row.key: row.score for row in run.lake.read(f"scores/{PIPELINE}").collect()}
    assert len(table) == 60
    with service_at(redis_url, "real") as url, Client(url) as client:
        for key, expected in table.items():
            assert client.score(PIPELINE, key).score == expected
        unknown = client.score(PIPELINE, "S-999")
        assert (unknown.source, unknown.score) == ("fallback", 0.25)
    mean = {model: sum(v for k, v in table.items() if int(k[2:]) % 2 == n) / 30 for n, model in enumerate("AB")}
    assert mean["B"] > mean["A"], "the model learned what the data say"


def test_its_dag_is_made_from_its_file(run: Run) -> None:
    dag = build(run.pipeline)
    assert dag.dag_id == PIPELINE
    assert {"wait_for_sessions", "wait_for_stations", "ingest", "score", "publish"} <= set(dag.task_ids)
