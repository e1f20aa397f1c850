"""The training job on a small shop: what it registers, what it reports, and that it knows nothing after its as_of."""

import json
import shutil
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from jobs.errors import DataFault, FrameFault, SqlRefused, TooLittleHistory
from jobs.registry import ModelVersion, VerifiedArtefact, fetch, resolve
from jobs.scoring import load_scoring_model
from jobs.spec import Pipeline
from jobs.spec.pipeline import ModelRef, Training
from jobs.tables import APPENDS, VERSION, events_table
from jobs.training import has_champion, train
from tests.conftest import ROOT
from tests.project import Project
from tests.registered import PURCHASE_FEATURES

AS_OF = datetime(1998, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
DECLARED = Training(first_as_of=date(1997, 6, 1), every_days=30, calibration_days=31, test_days=31)
Event = tuple[str, datetime, datetime, str, date, int, str, date, str, str]


def event(number: int, customer: int, when: datetime, arrived: datetime) -> Event:
    day = when.date()
    return (f"e{number}", when, arrived, f"{customer:05d}", day, 1, f"{5 + number % 30}.25", day, "file", "digest")


def purchases(customers: int = 400) -> list[Event]:
    """Purchases from January 1997 to July 1998: the first half of the customers buys often, the others seldom."""
    chance = np.random.default_rng(1)
    made: list[Event] = []
    for customer in range(customers):
        gap = 45 if customer < customers // 2 else 400
        when = datetime(1997, 1, 1, tzinfo=UTC) + DAY * int(chance.integers(90))
        while when < AS_OF + 30 * DAY:
            made.append(event(len(made), customer, when, when + DAY))
            when += DAY * max(1, round(chance.exponential(gap)))
    return made


def load(project: Project, rows: Iterable[Event]) -> None:
    """Append events of `purchase_propensity` as ingest would."""
    table = events_table("transactions", project.pipeline().events[1])
    project.lake.create(table)
    types = [f"{column.name} {column.type}" for column in table.columns if column.name != VERSION]
    schema = ", ".join(types).replace("amount DECIMAL(10,2)", "amount STRING")
    frame = project.spark.createDataFrame(list(rows), schema).withColumn(
        "amount", F.expr("CAST(amount AS DECIMAL(10,2))")
    )
    project.lake.deliver(frame, table, project.lake.fence(table.name, APPENDS))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> Project:
    project = Project(tmp_path_factory.mktemp("training") / "a shop", spark)
    load(project, purchases())
    return project


@pytest.fixture(scope="module")
def pipeline(project: Project) -> Pipeline:
    return project.pipeline().model_copy(update={"training": DECLARED})


@pytest.fixture(scope="module")
def champion(project: Project, pipeline: Pipeline) -> ModelVersion:
    assert not has_champion(pipeline, project.settings)
    return train(project.spark, pipeline, project.settings, AS_OF)


@pytest.fixture(scope="module")
def report(project: Project, champion: ModelVersion) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    assert champion.version == "1"
    return dict(json.loads((folder(project) / "report.json").read_text()))


def folder(project: Project) -> Path:
    return project.settings.reports / "training" / "purchase_propensity" / "1998-06-01"


def fetched(project: Project, version: ModelVersion) -> VerifiedArtefact:
    return fetch(project.settings.mlflow_uri, version.name, version.version, version.digest)


def scores(artefact: VerifiedArtefact) -> list[int]:
    """Return the bits of what a model scores on many different rows."""
    matrix = np.random.default_rng(5).exponential(60, (2_000, len(PURCHASE_FEATURES)))
    bits = load_scoring_model(artefact.blob, artefact.version.features).score(matrix).view(np.uint32)
    return [int(value) for value in bits]


def test_the_champion_is_registered_with_all_that_explains_it(project: Project, champion: ModelVersion) -> None:
    uri = project.settings.mlflow_uri
    assert resolve(uri, "purchase_propensity", "champion") == champion
    assert champion.features == PURCHASE_FEATURES
    assert fetched(project, champion).training_as_of == AS_OF
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    registered = client.get_model_version(champion.name, champion.version)
    queries = {f"scoreline.sql.{kind}" for kind in ("population", "features", "labels", "evaluation")}
    explained = {"scoreline.training_as_of", "scoreline.code_version", "scoreline.table.events/transactions"}
    assert queries | explained <= registered.tags.keys()
    run = client.get_run(registered.run_id)
    assert run.data.metrics.keys() >= {"champion.auc", "recency_bands.brier", "recency_and_frequency.lift_10"}
    found = {entry.path for entry in client.list_artifacts(registered.run_id, "report")}
    assert found == {"report/report.json", "report/report.html"}


def test_it_beats_chance_on_days_it_has_not_seen(report: dict[str, dict[str, dict[str, dict[str, float]]]]) -> None:
    models = report["evaluation"]["all"]["models"]
    assert set(models) == {"champion", "recency bands", "recency and frequency"}
    assert models["champion"]["auc"] > 0.65  # type: ignore[index]  # reason: JSON is deeper than its type says
    assert set(report["evaluation"]["slices"]) == {"first_purchase_month", "spent_total"}


def test_no_period_reaches_into_the_next(report: dict[str, dict[str, dict[str, str]]]) -> None:
    train, calibration, test = (report["periods"][name] for name in ("train", "calibration", "test"))
    horizon = timedelta(days=60)
    assert date.fromisoformat(train["last"]) + horizon <= date.fromisoformat(calibration["first"])
    assert date.fromisoformat(calibration["last"]) + horizon <= date.fromisoformat(test["first"])
    assert date.fromisoformat(test["last"]) + horizon <= AS_OF.date()


def test_the_page_is_complete_in_itself(project: Project, champion: ModelVersion) -> None:
    page = (folder(project) / "report.html").read_text()
    assert champion.name in page
    assert page.count("<svg") == 4
    assert "1997-01" in page
    for loading in ("<script", "<link", "<img", "src=", "@import", "url(http"):
        assert loading not in page


def test_what_comes_after_its_as_of_or_a_second_time_changes_no_bit(
    project: Project, pipeline: Pipeline, champion: ModelVersion
) -> None:
    """Neither purchases after it, nor earlier ones that arrive after it, nor what is sent again; it can be repeated.

    The second model is registered beside the champion, which stays what it was.
    """
    after = [event(10**6 + n, n, AS_OF + DAY * (n % 20), AS_OF + DAY * (n % 20 + 1)) for n in range(300)]
    late = [event(2 * 10**6 + n, n, AS_OF - DAY * (30 + n % 90), AS_OF + DAY) for n in range(300)]
    again = [(*one[:2], one[2] + DAY, *one[3:]) for one in purchases()[::3]]
    load(project, [*after, *late, *again])
    challenger = pipeline.model_copy(update={"model": ModelRef(name=pipeline.model.name, alias="challenger")})
    second = train(project.spark, challenger, project.settings, AS_OF)
    assert resolve(project.settings.mlflow_uri, champion.name, "champion") == champion
    assert resolve(project.settings.mlflow_uri, champion.name, "challenger") == second
    assert int(second.version) == int(champion.version) + 1
    assert scores(fetched(project, second)) == scores(fetched(project, champion))


def test_too_little_history_names_the_remedy(project: Project, pipeline: Pipeline, champion: ModelVersion) -> None:
    with pytest.raises(TooLittleHistory, match="train at a later --as-of"):
        train(project.spark, pipeline, project.settings, AS_OF - 250 * DAY)
    assert resolve(project.settings.mlflow_uri, champion.name, "champion") == champion


def test_before_anything_was_ingested_it_says_so(project: Project, pipeline: Pipeline, tmp_path: Path) -> None:
    empty = Project(tmp_path / "empty", project.spark)
    with pytest.raises(DataFault, match="events/transactions does not exist: run `scoreline ingest purchase_prop"):
        train(project.spark, pipeline, empty.settings, AS_OF)


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("features", "SELECT key, as_of, recent FROM spine", r"features\.sql: \[UNRESOLVED_COLUMN"),
        ("features", "SELECT key, as_of, 1 / (cds - cds) AS x FROM spine, events", r"features\.sql: \[DIVIDE_BY_ZERO"),
        ("features", "SELECT key, as_of, key AS x FROM spine", r"features\.sql: x is string; cast"),
        ("population", "SELECT DISTINCT cds AS key, as_of FROM events, as_ofs", "population.sql: key is int; write"),
    ],
)
def test_wrong_sql_is_refused_by_name(
    project: Project, pipeline: Pipeline, tmp_path: Path, kind: str, text: str, message: str
) -> None:
    folder = tmp_path / "jobs" / "sql" / pipeline.name
    shutil.copytree(ROOT / "jobs" / "sql" / pipeline.name, folder)
    (folder / f"{kind}.sql").write_text(text)
    with pytest.raises((SqlRefused, FrameFault), match=message):
        train(project.spark, pipeline, project.settings.model_copy(update={"project": tmp_path}), AS_OF)
