"""The check: each of twelve planted faults is found and named with its column, and good pipelines pass."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pyarrow as pa
import pytest
from mlflow import MlflowClient
from pyspark.sql import SparkSession

from jobs.check.cost import Cost
from jobs.check.files import Files
from jobs.check.findings import Finding
from jobs.check.job import Check
from jobs.check.made import KEYS, made_sample
from jobs.check.model import champion
from jobs.check.planted import Garden
from jobs.check.sample import Sample, read_sample
from jobs.check.trial import Trial
from jobs.check.worlds import Probe
from jobs.registry import DIGEST, ModelVersion
from jobs.sqlfile import pipeline_sql
from tests.conftest import ROOT
from tests.e2e.test_second_pipeline import PIPELINE as SECOND
from tests.e2e.test_second_pipeline import write_project
from tests.project import Project, with_stream
from tests.registered import PURCHASE_FEATURES, register_small

NAME = "purchase_propensity"
SQL, YAML = f"jobs/sql/{NAME}", f"dags/pipelines/{NAME}.yaml"
SUITES = f"expectations/suites/{NAME}"
COLUMN = "CAST(spent AS DOUBLE) AS spent_total"
OWN = "FROM events AS x WHERE x.customer_id = history.key"


SAMPLES: dict[Path, Sample] = {}


@pytest.fixture(scope="module")
def filled(filled: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The days of purchases with a registry of its own: whoever else registers a model moves the other's champion."""
    return replace(filled, registry=f"sqlite:///{tmp_path_factory.mktemp('registry')}/mlflow.db")


@pytest.fixture(scope="module")
def model(filled: Project, tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    return register_small(filled.settings.mlflow_uri, tmp_path_factory.mktemp("report"))


def check(project: Project, cost: Cost | None = None) -> Check:
    """Return the check of a project; what it tries the SQL on is read once for all that share a lake."""
    if project.folder not in SAMPLES:
        sample = read_sample(project.lake, project.pipeline())
        assert sample is not None
        SAMPLES[project.folder] = sample
    return Check(project.lake, project.settings, project.pipeline(), cost or Cost(), SAMPLES[project.folder])


def faults(findings: Iterator[Finding]) -> list[str]:
    return [finding.line for finding in findings if finding.is_fault]


def edited(project: Project, folder: Path, name: str, was: str, now: str) -> Project:
    """Return a copy of the project in which `was` is `now` in one file."""
    copy = project.copied(folder)
    path = copy.root / name
    text = path.read_text("utf-8")
    assert was in text
    path.write_text(text.replace(was, now, 1))
    return copy


def a_sum(condition: str) -> str:
    """Return one more feature: a sum that looks at events of the key by a condition of its own."""
    return f"CAST((SELECT SUM(x.amount) {OWN} AND {condition}) AS DOUBLE) AS planted"


def test_a_good_pipeline_passes(filled: Project, model: ModelVersion) -> None:
    found = list(check(filled).findings())
    assert [each.line for each in found if each.is_fault] == []
    lines = "\n".join(each.line for each in found)
    for said in (
        f"ok    model {NAME}@champion: version {model.version}, digest {model.digest[:12]}",
        "ok    sample: 190 keys of events/transactions",
        "ok    population.sql: keys are unique, and see nothing later than as_of",
        "ok    features.sql: deterministic",
        "ok    features.sql: point-in-time by event time",
        "ok    features.sql: point-in-time by arrival time",
        "ok    features.sql: point-in-time by label",
        "ok    features.sql: independent of the spine's other rows",
        "ok    features.sql: fit for the stream",
        "ok    labels.sql: looks at the horizon and no further",
        "ok    stream: the features of ",
    ):
        assert said in lines


FEATURES = f"{SQL}/features.sql"
KNOWN = "x.event_time < history.as_of AND x.arrived_at <= history.as_of"
IN_PERIOD = "x.event_time >= history.as_of AND x.event_time < history.as_of + INTERVAL 60 DAY"
PLANTED = {
    "event time": (
        FEATURES, COLUMN, f"{COLUMN}, {a_sum('x.arrived_at <= history.as_of')}",
        r"column planted changes with events that happen at as_of or later.*\(event time\): key \d{5} as of",
    ),
    "arrival time": (
        FEATURES, COLUMN, f"{COLUMN}, {a_sum('x.event_time < history.as_of')}",
        r"column planted changes with events that arrive after as_of.*\(arrival time\): key \d{5} as of",
    ),
    "label": (
        FEATURES, COLUMN, f"{COLUMN}, {a_sum(IN_PERIOD)}",
        r"column planted changes with events of the label's period.*\(label\): key \d{5} as of",
    ),
    "nondeterministic aggregate": (
        FEATURES, COLUMN, f"{COLUMN}, {a_sum(KNOWN).replace('SUM(x.amount)', 'MAX_BY(x.amount, x.event_time)')}",
        "column planted: the same rows in another order give other values",
    ),
    "other dates": (
        FEATURES, COLUMN, f"{COLUMN}, PERCENT_RANK() OVER (ORDER BY spent, key, as_of) AS planted",
        r"column planted of a row depend on other rows of the spine.*: key \d{5} as of 1998-06-03 has 0\.\d+ among all",
    ),
    "other keys": (
        FEATURES, COLUMN, f"{COLUMN}, PERCENT_RANK() OVER (PARTITION BY as_of ORDER BY spent, key) AS planted",
        r"column planted of a row depend on other rows of the spine.*: key \d{5} as of 1998-06-03 has 0\.\d+ among all",
    ),
    "current_date": (
        FEATURES, COLUMN, f"{COLUMN}, CAST(DATEDIFF(CURRENT_DATE(), as_of) AS DOUBLE) AS age",
        r"column age: current_date\(\) is refused: it depends on the clock: use as_of",
    ),
    "wrong type": (
        FEATURES, COLUMN, "CAST(spent AS STRING) AS spent_total",
        "spent_total is string; cast what the model takes to DOUBLE",
    ),
    "unknown column": (FEATURES, "    e.cds,\n", "    e.cd AS cds,\n", r"UNRESOLVED_COLUMN.*`e`\.`cd`"),
    "key not unique": (
        f"{SQL}/population.sql", "SELECT DISTINCT", "SELECT", r"column key is not unique: \d{5} is there \d+ times"
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_named_with_its_column(
    filled: Project, model: ModelVersion, tmp_path: Path, fault: str
) -> None:
    file, was, now, said = PLANTED[fault]
    copy = edited(filled, tmp_path, file, was, now)
    path = copy.root / YAML
    path.write_text(with_stream(path.read_text(), ""))  # what a stream needs is tried below
    found = []
    for finding in check(copy).findings():
        found.append(finding.line)
        if finding.is_fault and re.search(rf"{Path(file).name}: .*{said}", finding.line):
            return
    pytest.fail("\n".join(found))


def test_a_missing_suite_and_one_of_another_column_are_named(
    filled: Project, model: ModelVersion, tmp_path: Path
) -> None:
    copy = edited(filled, tmp_path, f"{SUITES}/features.yaml", "column: spent_total", "column: spent_totl")
    (copy.root / SUITES / "scores.yaml").unlink()
    files = Files(copy.settings, copy.pipeline())
    files.read()
    files.plan(copy.spark)
    found = "\n".join(faults(iter(files.found)))
    assert re.search(r"FAULT suite scores: .*scores.yaml: there is no such suite: write the file", found)
    assert re.search(r"FAULT suite features: .*features.yaml, line \d+: there is no column spent_totl", found)


def test_an_unpinned_model_is_named(filled: Project, model: ModelVersion, tmp_path: Path) -> None:
    """One whose digest is gone, and one that no alias names; none at all is worth a note alone."""
    own = Project(tmp_path, filled.spark)
    names = [*PURCHASE_FEATURES]
    untrained = champion(own.settings, own.pipeline(), names)
    assert untrained.verdict == "note"
    assert "not trained yet: `scoreline train purchase_propensity --as-of D` is next" in untrained.said
    version = register_small(own.settings.mlflow_uri, tmp_path / "report")
    assert champion(own.settings, own.pipeline(), names).verdict == "ok"
    lacking = champion(own.settings, own.pipeline(), names[1:])
    assert lacking.line.startswith(
        "FAULT model purchase_propensity@champion: version 1 needs recency_days, which features"
    )
    more = champion(own.settings, own.pipeline(), [*names, "tenure"])
    assert more.line.startswith(
        "note  model purchase_propensity@champion: version 1 does not know tenure: train a model"
    )
    client = MlflowClient(own.settings.mlflow_uri)
    client.delete_model_version_tag(version.name, version.version, DIGEST)
    without = champion(own.settings, own.pipeline(), names)
    assert without.is_fault
    assert "version 1 has no digest on record" in without.said
    client.delete_registered_model_alias(version.name, "champion")
    unnamed = champion(own.settings, own.pipeline(), names)
    assert unnamed.line.startswith("FAULT model purchase_propensity@champion: unpinned: there is no model")
    assert "`scoreline model promote purchase_propensity VERSION` pins one" in unnamed.said


def test_a_registry_that_goes_away_is_a_fault(
    filled: Project, model: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the alias, and at the versions of a model without one."""
    (tmp_path / "mlflow.db").write_text("no database")
    away = Project(tmp_path, filled.spark)
    at_alias = champion(away.settings, away.pipeline(), None)
    assert at_alias.line.startswith("FAULT model purchase_propensity@champion: MLflow at sqlite:")

    def gone(*_: object) -> NoReturn:
        raise OSError("no route to host")

    monkeypatch.setattr(MlflowClient, "search_model_versions", gone)
    other = edited(filled, tmp_path, YAML, "alias: champion", "alias: nobody")
    at_versions = champion(other.settings, other.pipeline(), None)
    assert at_versions.line.startswith("FAULT model purchase_propensity@nobody: MLflow at sqlite:")
    assert "no route to host" in at_versions.said


def test_a_pipeline_without_events_is_tried_on_rows_made_for_it(spark: SparkSession, tmp_path: Path) -> None:
    """Also one with a dimension, booleans and doubles; a dimension's later rows must change nothing."""
    write_project(tmp_path)
    project = Project(tmp_path / "own", spark, tmp_path)
    second = Check(project.lake, project.settings, project.pipeline(SECOND))
    found = list(second.findings())
    assert faults(iter(found)) == []
    assert any("60 keys with rows made by this check" in each.said for each in found)
    sql = tmp_path / f"jobs/sql/{SECOND}/features.sql"
    sql.write_text(sql.read_text().replace("d.valid_from <= s.as_of AND s.as_of < d.valid_to", "s.as_of < d.valid_to"))
    found = list(second.findings())
    assert [line for line in faults(iter(found)) if "rows of dimensions that are delivered after as_of" in line], found


@pytest.mark.parametrize("models", ["AB", "A"])
def test_a_dimension_with_one_row_a_key_has_later_rows_too(spark: SparkSession, tmp_path: Path, models: str) -> None:
    """Of other attributes, or they are no change; of none, where all rows say the same."""
    write_project(tmp_path)
    project = Project(tmp_path / "own", spark, tmp_path)
    pipeline = project.pipeline(SECOND)
    sample = made_sample(spark, pipeline, {})
    first = sample.dimensions["stations"].take(list(range(0, 2 * KEYS, 2)))
    named = pa.array([models[number % len(models)] for number in range(len(first))])
    first = first.set_column(first.column_names.index("model"), "model", named)
    sql = pipeline_sql(project.settings, pipeline, "features")
    was = "d.valid_from <= s.as_of AND s.as_of < d.valid_to"
    assert was in sql.text
    blind = replace(sql, text=sql.text.replace(was, "s.as_of < d.valid_to"))
    garden = Garden(pipeline, replace(sample, dimensions={"stations": first}))
    population = pipeline_sql(project.settings, pipeline, "population")
    for features, is_fault in ((sql, False), (blind, True)):
        trial = Trial(Probe(spark, pipeline), garden, {"population": population, "features": features})
        found = [each for each in trial.of_features() if "later attributes" in each.said]
        assert [each.is_fault for each in found] == [is_fault], found


def test_nothing_is_said_to_be_independent_of_rows_that_are_not_there(filled: Project) -> None:
    """Of the ranks of one row no two differ, whatever else is in the spine."""
    pipeline = filled.pipeline()
    population, features = (pipeline_sql(filled.settings, pipeline, kind) for kind in ("population", "features"))
    one = replace(population, text=f"{population.text} WHERE e.customer_id = '00001'")
    ranked = f"{COLUMN}, PERCENT_RANK() OVER (PARTITION BY as_of ORDER BY spent, key) AS planted"
    sql = {"population": one, "features": replace(features, text=features.text.replace(COLUMN, ranked, 1))}
    sample = check(filled).sample
    assert sample is not None
    garden = Garden(pipeline, sample)
    said = [each.line for each in Trial(Probe(filled.spark, pipeline), garden, sql).of_features()]
    assert not [line for line in said if "independent of the spine's other rows" in line]
    assert [line for line in said if "whether a row depends on the spine's other rows is not known" in line]


def test_what_a_stream_cannot_do_is_a_fault_where_one_is_declared(
    filled: Project, model: ModelVersion, tmp_path: Path
) -> None:
    """Features that depend on other keys, and such as take too long."""
    among_all = f"{COLUMN}, {a_sum(KNOWN).replace(OWN, 'FROM events AS x WHERE TRUE')}"
    copy = edited(filled, tmp_path, FEATURES, COLUMN, among_all)
    found = "\n".join(faults(check(copy, Cost(0)).findings()))
    assert "column planted of a key depend on other keys' events, which the stream does not see" in found
    assert re.search(r"FAULT stream: the features of \d+ keys .*a micro-batch may take 0", found)
    path = copy.root / YAML
    path.write_text(with_stream(path.read_text(), ""))
    assert faults(check(copy, Cost(0)).findings()) == []


@pytest.mark.parametrize(
    ("file", "was", "now"),
    [
        ("features", COLUMN, f"{COLUMN}, CAST(1 / (purchases - purchases) AS DOUBLE) AS planted"),
        ("population", "SELECT DISTINCT", "SELECT DISTINCT 1 / (e.cds - e.cds) AS planted,"),
    ],
)
def test_sql_that_fails_on_rows_is_a_fault_told_once(
    filled: Project, model: ModelVersion, tmp_path: Path, file: str, was: str, now: str
) -> None:
    """Spark plans it; nothing that needs its rows is tried, be it the cost for the stream or other SQL's rows."""
    found = list(check(edited(filled, tmp_path, f"{SQL}/{file}.sql", was, now)).findings())
    (fault,) = faults(iter(found))
    assert re.search(rf"FAULT {file}\.sql: .*{file}\.sql: \[DIVIDE_BY_ZERO\]", fault)
    assert [each.line for each in found if each.about == "stream"] == []


def test_an_empty_population_is_not_called_unique(filled: Project, model: ModelVersion, tmp_path: Path) -> None:
    nobody = edited(filled, tmp_path, f"{SQL}/population.sql", "e.event_time < a.as_of", "e.event_time < '1900-01-01'")
    found = [each.line for each in check(nobody).findings() if each.about == "population.sql"]
    assert len(found) == 2, found
    assert found[1].startswith("FAULT population.sql: nobody is in the population")


def test_the_label_looks_at_the_horizon_and_no_further(filled: Project, model: ModelVersion, tmp_path: Path) -> None:
    period = "AND e.event_time < timestampadd(DAY, :horizon_days, s.as_of)"
    beyond = edited(filled, tmp_path / "a", f"{SQL}/labels.sql", period, "")
    found = faults(check(beyond).findings())
    assert [line for line in found if "labels.sql: column label changes with events after as_of + horizon" in line], (
        found
    )
    blind = edited(filled, tmp_path / "b", f"{SQL}/labels.sql", period, "AND e.event_time < s.as_of")
    found = faults(check(blind).findings())
    assert [line for line in found if "labels.sql: column label does not look at the horizon" in line], found


def test_the_command_says_all_and_fails(filled: Project, tmp_path: Path) -> None:
    copy = edited(filled, tmp_path, YAML, "horizon_days: 60", "horizon_days: soon")
    done = subprocess.run(
        [sys.executable, "-m", "jobs", "check"],
        env={**os.environ, "SCORELINE_PROJECT": str(copy.root)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert re.search(r"FAULT purchase_propensity\.yaml: .*:\d+: label\.horizon_days: ", done.stdout)
    assert "purchase_propensity has 1 of the faults above" in done.stderr
