"""What happens where a pipeline that has a history is changed: each is foretold by the check, and nothing is reread."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from pyspark.sql.functions import expr
from pyspark.sql.types import DoubleType, IntegerType, StructType

from jobs.check.history import History
from jobs.errors import DataFault, FrameFault, StreamChanged
from jobs.ingest import ingest
from jobs.registry import ModelVersion
from jobs.run import Run
from jobs.score import score
from jobs.spec import Pipeline
from jobs.stream.checkpoint import current, forget
from jobs.tables import features_table
from tests.jobs.conftest import DAY, NEXT
from tests.project import Project, purchases, scored
from tests.registered import PURCHASE_FEATURES, register_small

NAME = "purchase_propensity"
FEATURES, YAML = f"jobs/sql/{NAME}/features.sql", f"dags/pipelines/{NAME}.yaml"
SPENT = "  CAST(spent AS DOUBLE) AS spent_total,\n"


def declaring(project: Project, folder: Path, *changes: tuple[str, str]) -> Pipeline:
    """Return the pipeline with changes of its YAML."""
    copy = project.copied(folder)
    path, text = copy.root / YAML, (copy.root / YAML).read_text()
    for was, now in changes:
        assert was in text
        text = text.replace(was, now)
    path.write_text(text)
    return copy.pipeline()


def said(project: Project, pipeline: Pipeline, features: StructType | None = None) -> list[str]:
    return [finding.line for finding in History(project.lake, pipeline).findings(features)]


def having(lines: Iterable[str], words: str) -> bool:
    return any(words in line for line in lines)


def test_what_is_as_it_was_is_fine(filled: Project, run: Run) -> None:
    stored = filled.lake.read(f"features/{NAME}").drop("as_of_date").schema
    assert said(filled, filled.pipeline(), stored) == [
        "ok    events/transactions: has the columns that are declared",
        f"ok    features/{NAME}: has the features that features.sql gives",
    ]


def test_features_that_come_go_or_change_their_type_are_told(filled: Project, run: Run) -> None:
    stored = filled.lake.read(f"features/{NAME}").drop("as_of_date").schema
    other = StructType([field for field in stored if field.name != "spent_30d"]).add("visits", DoubleType())
    lines = said(filled, filled.pipeline(), other)
    assert having(lines, f"note  features/{NAME}: visits will be added, and NULL for the dates before")
    assert having(lines, f"note  features/{NAME}: features.sql does not give spent_30d any more: it stays, and is NULL")
    kept = [field for field in stored if field.name != "spent_30d"]
    typed = StructType(kept).add("spent_30d", IntegerType())
    fault = "column spent_30d is DOUBLE in the table and INT now"
    lines = said(filled, filled.pipeline(), typed)
    assert having(lines, f"FAULT features/{NAME}: {fault}; cast it back in features.sql, or give it another name")
    with pytest.raises(DataFault, match=fault):
        filled.lake.create(features_table(NAME, typed))


def test_columns_of_a_source_that_come_go_or_change_their_type_are_told(
    filled: Project, run: Run, tmp_path: Path
) -> None:
    other = declaring(filled, tmp_path / "a", ("      cds: int\n", "      shop: string\n"))
    lines = said(filled, other)
    assert having(lines, "note  events/transactions: shop will be added, and NULL in the rows that are there")
    assert having(lines, "note  events/transactions: cds is not declared any more: it stays, and is NULL from now on")
    typed = declaring(filled, tmp_path / "b", ("cds: int", "cds: bigint"))
    assert having(said(filled, typed), "FAULT events/transactions: column cds is INT in the table and BIGINT now")
    with pytest.raises(DataFault, match="column cds is INT in the table and BIGINT now"):
        ingest(replace(filled.run(DAY), pipeline=typed), [DAY])


def test_another_entity_key_is_refused_before_a_score_is_of_somebody_else(
    filled: Project, run: Run, model: ModelVersion, tmp_path: Path
) -> None:
    columns = ("      customer_id: string\n", "      customer_id: string\n      household: string\n")
    other = declaring(filled, tmp_path, columns, ("entity_key: customer_id", "entity_key: household"))
    fault = "its keys are of customer_id, and entity_key is household now"
    assert having(said(filled, other), f"FAULT scores/{NAME}: {fault}")
    before = filled.lake.version(f"scores/{NAME}")
    with pytest.raises(DataFault, match=f"scores/{NAME}: {fault}.*or write entity_key: customer_id"):
        score(replace(run, pipeline=other), model.version, model.digest)
    assert filled.lake.version(f"scores/{NAME}") == before


def test_another_model_is_told_and_each_row_names_its_own(filled: Project, run: Run, tmp_path: Path) -> None:
    other = declaring(filled, tmp_path, ("model:\n  name: purchase_propensity", "model:\n  name: repurchase"))
    told = (
        f"note  scores/{NAME}: the newest scores are of model purchase_propensity; repurchase will score from the next"
    )
    assert having(said(filled, other), told)
    assert filled.lake.read(f"scores/{NAME}").select("model_name").distinct().collect() == [("purchase_propensity",)]


def test_a_stream_with_a_checkpoint_is_told_of_other_columns_and_keys(project: Project, tmp_path: Path) -> None:
    project.deliver(DAY, purchases(DAY, 3))
    ingest(project.run(DAY), [DAY])
    pipeline = project.pipeline()
    assert not having(said(project, pipeline), "stream")
    assert not project.lake.files.has(f"streams/{NAME}/checkpoint.json"), "looking made a checkpoint"
    current(project.lake, pipeline)
    assert not having(said(project, pipeline), "stream")
    added = declaring(project, tmp_path, ("      cds: int\n", "      cds: int\n      shop: string\n"))
    assert having(said(project, added), f"FAULT stream: {NAME}: the stream's checkpoint was made for other columns")
    assert having(said(project, added), f"`scoreline stream start {NAME} --rebuild` begins anew")
    with pytest.raises(StreamChanged):
        current(project.lake, added)
    forget(project.lake, added)  # as --rebuild does
    current(project.lake, added)
    assert not having(said(project, added), "FAULT")


def test_a_new_feature_is_null_before_and_one_that_is_gone_from_then_on(project: Project, tmp_path: Path) -> None:
    """Each after training: the champion before keeps a feature from going, and does not use a new one."""
    for number, day in enumerate((DAY, NEXT)):
        project.deliver(day, purchases(day, 10, first=1 + number))
    ingest(project.run(NEXT), [DAY, NEXT])
    champion = register_small(project.settings.mlflow_uri, tmp_path / "report")
    scored(project, champion, DAY)
    copy = project.copied(tmp_path)
    text = (copy.root / FEATURES).read_text()
    (copy.root / FEATURES).write_text(text.replace(SPENT, "  CAST(spent AS DOUBLE) / 100 AS spent_hundreds,\n"))
    with pytest.raises(FrameFault, match="features spent_total of the model are not among the columns of features"):
        scored(copy, champion, NEXT)
    suite = copy.root / f"expectations/suites/{NAME}/features.yaml"
    suite.write_text(suite.read_text().replace("spent_total", "spent_hundreds"))
    names = ["spent_hundreds" if name == "spent_total" else name for name in PURCHASE_FEATURES]
    follower = register_small(project.settings.mlflow_uri, tmp_path / "other", features=names)
    scored(copy, follower, NEXT)
    counts = "as_of_date", "count(spent_total) > 0 AS is_old", "count(spent_hundreds) > 0 AS is_new"
    seen = project.lake.read(f"features/{NAME}").groupBy("as_of_date").agg(*map(expr, counts[1:])).orderBy(counts[0])
    assert [tuple(row)[1:] for row in seen.collect()] == [(True, False), (False, True)]
