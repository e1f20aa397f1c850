"""Dimensions: deliveries in any order give one history, two truths are refused, and what was read is on record."""

from datetime import date, timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from jobs.errors import FrameFault
from jobs.features import with_validity
from jobs.ingest import ingest
from jobs.score import score
from tests.project import Project, purchases
from tests.registered import register_small

DAY = date(1998, 6, 1)
DAYS = [DAY + timedelta(days=number) for number in range(3)]
SOURCE = """sources:
  segments:
    kind: dimension
    landing: segments/date={day}/*.csv
    first_day: 1998-06-01
    columns: {customer_id: string, segment: string}
    suite: segments
"""


@pytest.fixture
def project(tmp_path: Path, spark: SparkSession) -> Project:
    """The purchases with a dimension beside them: each customer's segment."""
    project = Project(tmp_path / "a project", spark).copied(tmp_path)
    yaml = project.root / "dags/pipelines/purchase_propensity.yaml"
    yaml.write_text(yaml.read_text().replace("sources:\n", SOURCE))
    suite = project.root / "expectations/suites/purchase_propensity/segments.yaml"
    suite.write_text("- type: expect_column_values_to_not_be_null\n  kwargs: {column: segment}\n")
    for day in DAYS:
        project.deliver(day, purchases(day, 5))
    return project


def deliver(project: Project, day: date, segment: str, name: str = "segments.csv") -> None:
    path = Path(project.settings.landing) / "segments" / f"date={day}" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"customer_id,segment\n00001,{segment}\n")


def history(project: Project) -> list[tuple[str, str]]:
    known = with_validity(project.lake.read("dimensions/segments"), "customer_id")
    return [
        (str(row.since), row.segment)
        for row in known.selectExpr("date(valid_from) AS since", "segment", "valid_to").orderBy("since").collect()
    ]


def test_a_delivery_that_comes_late_falls_into_its_place(project: Project) -> None:
    for day, segment in ((DAYS[0], "a"), (DAYS[2], "a"), (DAYS[1], "b")):
        deliver(project, day, segment)
        ingest(project.run(day), [day])
    at = dict(history(project))
    assert [at["1998-06-02"], at["1998-06-03"], at["1998-06-04"]] == ["a", "b", "a"]


def test_two_truths_of_one_delivery_are_refused_and_change_nothing(project: Project) -> None:
    deliver(project, DAY, "a")
    ingest(project.run(DAY), [DAY])
    deliver(project, DAY, "b", "rest.csv")
    with pytest.raises(FrameFault, match=r"00001 has 2 different rows delivered at 1998-06-02"):
        ingest(project.run(DAY), [DAY])
    assert history(project) == [("1998-06-02", "a")]


def test_a_rerun_reads_the_dimension_that_the_first_run_read(project: Project, tmp_path: Path) -> None:
    for day in DAYS[:2]:
        deliver(project, day, "a")
    ingest(project.run(DAYS[1]), DAYS[:2])
    model = register_small(project.settings.mlflow_uri, tmp_path / "report")
    version = project.lake.appended("dimensions/segments")
    score(project.run(DAY), model.version, model.digest)
    deliver(project, DAY, "a", "late.csv")
    ingest(project.run(DAY), [DAY])
    score(project.run(DAY), model.version, model.digest)
    rows = project.lake.read("scores/purchase_propensity").collect()
    assert [row.dimension_versions for row in rows] == [{"segments": version}] * len(rows)
