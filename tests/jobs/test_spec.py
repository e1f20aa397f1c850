"""A pipeline's YAML: what is right is read, what is wrong is refused by file, line, field and remedy."""

import json
from pathlib import Path

import pytest

from jobs.errors import SpecError
from jobs.spec import Pipeline, load_pipeline, load_pipelines, read_pipeline, settings
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
        ("cds: int", "as_of: int", "as_of:", "sources.transactions.columns.as_of", "choose another"),
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
        ("keep: 3", "keep: 0", "keep:", "publication.keep", "greater than 0"),
        ("name: purchase_propensity\ndesc", "name: propensity\ndesc", "name:", "name", "rename the file"),
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


@pytest.mark.parametrize(("text", "word"), [("a: [", "not YAML"), ("- a", "declares no pipeline"), ("", "declares no")])
def test_what_is_no_pipeline_is_refused(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=word):
        read_pipeline(path)


def test_an_unknown_pipeline_is_refused_and_the_known_are_named(tmp_path: Path) -> None:
    changed(tmp_path, "tags", "tags")
    with pytest.raises(SpecError, match="known: purchase_propensity"):
        load_pipeline(tmp_path, "churn")


def test_the_projects_own_pipelines_are_right() -> None:
    assert "purchase_propensity" in load_pipelines(settings().pipelines)


def test_editors_get_the_schema_of_the_types() -> None:
    schema = json.loads((ROOT / "dags" / "pipeline.schema.json").read_text())
    assert schema == Pipeline.model_json_schema(), "run `scoreline schema > dags/pipeline.schema.json`"
