"""A pipeline's YAML: what is right is read, what is wrong is refused by file, line, field and remedy."""

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from jobs.errors import SpecError
from jobs.spec import Pipeline, Settings, load_pipeline, load_pipelines, read_pipeline, settings
from jobs.spec.pipeline import Schedule
from tests.conftest import ROOT

YAML = ROOT / "dags" / "pipelines" / "purchase_propensity.yaml"


def changed(folder: Path, old: str, new: str) -> Path:
    text = YAML.read_text()
    assert old in text
    path = folder / YAML.name
    path.write_text(text.replace(old, new, 1))
    return path


def line_of(path: Path, text: str) -> int:
    return next(number for number, line in enumerate(path.read_text().splitlines(), 1) if text in line)


@pytest.mark.parametrize(
    ("old", "new", "marker", "field", "remedy"),
    [
        (
            "entity_key: customer_id",
            "entity_kee: customer_id",
            "entity_kee",
            "entity_kee",
            "remove it or correct its name",
        ),
        ("entity_key: customer_id\n", "", "name:", "entity_key", "this field is missing; write entity_key:"),
        ("start_date: 1998-06-01", "start_date: 1998-07-01", "schedule:", "schedule", "write a later end_date"),
        ('cron: "0 0 * * *"', 'cron: "daily"', "cron:", "schedule.cron", "write five fields"),
        ("date={day}/", "date=today/", "landing:", "sources.transactions.landing", "write {day}"),
        ("landing: trans", "landing: ../trans", "landing:", "sources.transactions.landing", "relative to it"),
        ("cds: int", "cds: integer", "cds:", "sources.transactions.columns.cds", "write string, int"),
        ("cds: int", "as_of: int", "as_of:", "sources.transactions.columns.as_of", "under another name"),
        (
            "event_time: purchase_date",
            "event_time: bought",
            "transactions:",
            "sources.transactions",
            "not among columns",
        ),
        ("event_time: purchase_date", "event_time: cds", "transactions:", "sources.transactions", "declare it as date"),
        ("kind: events", "kind: stream", "kind:", "sources.transactions.kind", "write 'events' or 'dimension'"),
        ("kind: events", "kind: dimension", "name:", "pipeline", "declare exactly one"),
        ("horizon_days: 60", "horizon_days: soon", "horizon_days:", "label.horizon_days", "not 'soon'"),
        ("cds: int", "raw: int", "raw:", "sources.transactions.columns.raw", "under another name"),
        ("cds: int", "content: int", "content:", "sources.transactions.columns.content", "under another name"),
        ("cds: int", "fault_n: int", "fault_n:", "sources.transactions.columns.fault_n", "under another name"),
        ("cds: int", "event_time: date", "transactions:", "sources.transactions", "write event_time: event_time, or"),
        ("cds: int", "arrived_at: date", "transactions:", "sources.transactions", "write arrived_at: arrived_at, or"),
        ("cds: int", "event_id: string", "transactions:", "sources.transactions", "write event_id: event_id, or"),
        ("decimal(10,2)", "decimal(50,2)", "amount:", "sources.transactions.columns.amount", "p of 1 to 38 digits"),
        ("decimal(10,2)", "decimal(2,4)", "amount:", "sources.transactions.columns.amount", "p of 1 to 38 digits"),
        ("decimal(10,2)", "decimal(0,0)", "amount:", "sources.transactions.columns.amount", "p of 1 to 38 digits"),
        ('cron: "0 0 * * *"', 'cron: "99 99 * * *"', "cron:", "schedule.cron", "write five fields"),
        ('cron: "0 0 * * *"', 'cron: "0 24 * * *"', "cron:", "schedule.cron", "write five fields"),
        ("*.csv*", "*.{csv,txt}", "landing:", "sources.transactions.landing", "has braces other than {day}"),
        (
            "deadline_hours: 6",
            "deadline_hours: .inf",
            "deadline_hours:",
            "sources.transactions.deadline_hours",
            "finite",
        ),
        ("score: 0.05", "score: .nan", "score:", "fallback.score", "finite number"),
        ("  score: 0.05", "  segments: a", "fallback:", "fallback", "write score: and its value, or kind: prior"),
        ("kind: constant", "kind: prior", "fallback:", "fallback", "prior computes its score: remove score:"),
        ("kind: constant", "kind: mean", "kind: mean", "fallback.kind", "write 'constant' or 'prior'"),
        ("keep: 3", "rails: {fall: 20}", "rails:", "publication.rails.fall", "less than or equal to 1, not '20'"),
        ("keep: 3", "rails: {rise: much}", "rails:", "publication.rails.rise", "not 'much'"),
        ("keep: 3", "rails: {nulls: -0.1}", "rails:", "publication.rails.nulls", "greater than or equal to 0"),
        ("keep: 3", "rails: {tolerance: 0.1}", "rails:", "publication.rails", "write changed: too"),
        ("keep: 3", "rails: {rows: 0.1}", "rails:", "publication.rails.rows", "there is no such field"),
        ("every_ms: 100", "every_ms: fast", "every_ms:", "stream.every_ms", "not 'fast'"),
        ("every_ms: 100", "stuck_minutes: 0", "stuck_minutes:", "stream.stuck_minutes", "greater than 0"),
        ("every_ms: 100", "segment: ''", "segment:", "stream.segment", "at least 1"),
        ("alias: champion", "alias: v2", "alias:", "model.alias", "MLflow keeps"),
        ("keep: 3", "keep: 0", "keep:", "publication.keep", "greater than 0"),
        ("name: purchase_propensity\ndesc", "name: propensity\ndesc", "name:", "name", "rename the file"),
        ("name: purchase_propensity\ndesc", "name: a_stream\ndesc", "name:", "name", "choose another"),
        ("customer_id: string", "customer_id: bigint", "name:", "pipeline", "write customer_id: string"),
    ],
)
def test_a_mistake_is_refused_with_its_place_and_remedy(
    tmp_path: Path, old: str, new: str, marker: str, field: str, remedy: str
) -> None:
    path = changed(tmp_path, old, new)
    with pytest.raises(SpecError) as refused:
        read_pipeline(path)
    message = str(refused.value)
    assert f"{path}:{line_of(path, marker)}: {field}: " in message
    assert remedy in message


def test_every_mistake_of_a_file_is_named_at_once(tmp_path: Path) -> None:
    path = changed(tmp_path, "cds: int", "cds: integer")
    path.write_text(path.read_text().replace("keep: 3", "keep: none"))
    with pytest.raises(SpecError) as refused:
        read_pipeline(path)
    assert len(str(refused.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "word"),
    [("a: [", "not YAML"), ("- a", "declares no pipeline"), ("", "declares no"), ("a: \x07", "not YAML")],
)
def test_what_is_no_pipeline_is_refused(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=word):
        read_pipeline(path)


def test_an_unknown_pipeline_is_refused_and_the_known_are_named(tmp_path: Path) -> None:
    changed(tmp_path, "tags", "tags")
    with pytest.raises(SpecError, match="known: purchase_propensity"):
        load_pipeline(tmp_path, "churn")


def test_a_column_may_be_called_as_its_role(tmp_path: Path) -> None:
    path = changed(tmp_path, "purchase_date: date", "event_time: date")
    path.write_text(path.read_text().replace("event_time: purchase_date", "event_time: event_time"))
    assert read_pipeline(path).events[1].event_time == "event_time"


@pytest.mark.parametrize("cron", ["5 23 * * *", "59  7 * * *", "00 00 * * *"])
def test_a_time_of_the_day_is_a_schedule(tmp_path: Path, cron: str) -> None:
    assert read_pipeline(changed(tmp_path, '"0 0 * * *"', f'"{cron}"')).schedule.cron == cron


def project_of_two(root: Path) -> Path:
    """Return the folder of two pipelines that share a source and its suite."""
    folder = root / "dags" / "pipelines"
    folder.mkdir(parents=True)
    changed(folder, "tags", "tags")
    text = YAML.read_text().replace("name: purchase_propensity\ndesc", "name: churn\ndesc", 1)
    (folder / "churn.yaml").write_text(text)
    for name in ("churn", "purchase_propensity"):
        suite = root / "expectations" / "suites" / name / "transactions.yaml"
        suite.parent.mkdir(parents=True)
        suite.write_text("- type: a\n")
    return folder


def test_pipelines_may_share_a_source_that_both_declare_and_judge_the_same(tmp_path: Path) -> None:
    folder = project_of_two(tmp_path)
    assert load_pipelines(folder).keys() == {"churn", "purchase_propensity"}
    assert load_pipeline(folder, "churn").name == "churn"


@pytest.mark.parametrize(("old", "new"), [("cds: int", "cds: bigint"), ("suite: transactions", "suite: other")])
def test_another_declaration_of_a_shared_source_is_refused(tmp_path: Path, old: str, new: str) -> None:
    folder = project_of_two(tmp_path)
    changed(folder, old, new)
    message = r"sources\.transactions: .* declare this source differently, but share its tables; make both"
    with pytest.raises(SpecError, match=message):
        load_pipelines(folder)
    with pytest.raises(SpecError, match=r"churn\.yaml: " + message):
        load_pipeline(folder, "churn")


def test_another_suite_of_a_shared_source_is_refused(tmp_path: Path) -> None:
    folder = project_of_two(tmp_path)
    (tmp_path / "expectations" / "suites" / "churn" / "transactions.yaml").write_text("- type: b\n")
    with pytest.raises(SpecError, match="churn and purchase_propensity judge this source differently"):
        load_pipelines(folder)


def test_a_mistake_in_another_file_is_no_concern_of_a_pipeline(tmp_path: Path) -> None:
    folder = project_of_two(tmp_path)
    (folder / "broken.yaml").write_text("a: [")
    assert load_pipeline(folder, "churn").name == "churn"


def test_no_run_looks_back_from_later_than_now_or_the_last_interval() -> None:
    now = datetime(1998, 6, 20, 13, tzinfo=UTC)
    ends = Schedule(start_date=date(1998, 6, 1), end_date=date(1998, 6, 30))
    assert ends.newest_as_of(now) == datetime(1998, 6, 20, tzinfo=UTC)
    assert ends.newest_as_of(now + timedelta(days=400)) == datetime(1998, 7, 1, tzinfo=UTC)
    endless = Schedule(start_date=date(1998, 6, 1))
    assert endless.newest_as_of(now + timedelta(days=30)) == datetime(1998, 7, 20, tzinfo=UTC)


def test_an_empty_variable_is_unset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SCORELINE_PROJECT", str(tmp_path))
    monkeypatch.setenv("SCORELINE_LAKE", "")
    monkeypatch.setenv("SCORELINE_MLFLOW_URI", "")
    found = Settings()
    assert found.lake == str(tmp_path / "var" / "lake")
    assert found.mlflow_uri.startswith("sqlite:///")
    assert found.table("events/x") == Settings(lake=f"{found.lake}/").table("events/x") == f"{found.lake}/events/x"


def test_the_projects_own_pipelines_are_right() -> None:
    assert "purchase_propensity" in load_pipelines(settings().pipelines)


def test_editors_get_the_schema_of_the_types() -> None:
    schema = json.loads((ROOT / "dags" / "pipeline.schema.json").read_text())
    assert schema == Pipeline.model_json_schema(), "run `scoreline schema > dags/pipeline.schema.json`"
