"""Scores of thousands of made-up keys, put into the scores table as a scoring run would."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from pyspark.sql import DataFrame

from jobs.run import CHAMPION, Run, as_of_day
from jobs.tables import features_table, scores_table, superseded
from serving.clock import Clock
from tests.project import Project, with_stream

DAY = date(1998, 6, 1)
NAME = "purchase_propensity"
EVENING = datetime(1998, 6, 10, 20, tzinfo=UTC)  # when the first publication of a test happens


def numbered(project: Project, rows: int, score: str = "id / 100000") -> DataFrame:
    """Return (key, score) of keys k0, k1, ...; `score` is SQL over their numbers, `id`."""
    return project.spark.range(rows).selectExpr("concat('k', id) AS key", f"CAST({score} AS FLOAT) AS score")


def put(project: Project, day: date, scores: DataFrame, version: str = "1") -> Run:
    """Replace the scores of a day, as version `version` of the model; return the day's run."""
    table = scores_table(NAME)
    project.lake.create(table)
    as_of = f"TIMESTAMP'{as_of_day(day):%Y-%m-%d %H:%M:%S}'"
    rows = scores.selectExpr(
        "key",
        "score",
        f"{as_of} AS as_of",
        f"to_date({as_of}) AS as_of_date",
        f"'{CHAMPION}' AS arm",
        f"'{NAME}' AS model_name",
        f"'{version}' AS model_version",
        f"'digest {version}' AS model_digest",
        "3L AS events_version",
        "CAST(map() AS MAP<STRING,BIGINT>) AS dimension_versions",
        "'test' AS run_id",
    ).coalesce(1)
    run = project.run(day)
    writer = rows.write.format("delta").mode("overwrite").option("replaceWhere", run.partition)
    writer.save(project.lake.path(table.name))
    return run


def supersede(project: Project, day: date) -> None:
    """Keep the scores of a day as what another scoring is about to replace."""
    before = project.lake.read(f"scores/{NAME}").where(project.run(day).partition)
    table = superseded(scores_table(NAME))
    project.lake.create(table)
    rows = before.selectExpr("*", "current_timestamp() AS superseded_at")
    rows.write.format("delta").mode("append").save(project.lake.path(table.name))


def put_features(project: Project, day: date, features: DataFrame) -> None:
    """Put features of a day into their table: key and whatever else there is."""
    as_of = f"TIMESTAMP'{as_of_day(day):%Y-%m-%d %H:%M:%S}'"
    rows = features.selectExpr("key", f"{as_of} AS as_of", *(name for name in features.columns if name != "key"))
    table = features_table(NAME, rows.schema)
    project.lake.create(table)
    dated = rows.selectExpr("*", f"to_date({as_of}) AS as_of_date")
    dated.write.format("delta").mode("append").save(project.lake.path(table.name))


def declaring(run: Run, **publication: Any) -> Run:
    """Return the run of a pipeline whose YAML says this of its publication."""
    said = {**run.pipeline.publication.model_dump(), **publication}
    changed = type(run.pipeline.publication).model_validate(said)
    return replace(run, pipeline=run.pipeline.model_copy(update={"publication": changed}))


def at(run: Run, minutes: float = 0) -> Run:
    """Return the run with a clock that shows `minutes` after EVENING, and runs on from there."""
    return replace(run, clock=Clock(EVENING + timedelta(minutes=minutes) - datetime.now(UTC)))


def streaming(project: Project, text: str = "stream: {}") -> Project:
    """Return the project with this `stream:` in its pipeline's YAML, in place of its own."""
    other = project.copied(project.folder / "declared")
    path = other.settings.pipelines / f"{NAME}.yaml"
    path.write_text(with_stream(path.read_text(), text))
    return other
