"""A new engineer's way: `new`, `check`, ingest, train, score, publish, look up; then a refund and a correction."""

import os
import subprocess
import sys
from datetime import UTC, datetime, time
from pathlib import Path

import pytest
from click.testing import CliRunner
from pyspark.sql import Row, SparkSession

from jobs.check.job import Check
from jobs.errors import DataFault, SpecError
from jobs.ingest import ingest
from jobs.lake import Lake
from jobs.new.outline import Outline
from jobs.new.writing import write
from jobs.publication.publish import publish
from jobs.registry import resolve
from jobs.run import Run
from jobs.score import score
from jobs.spec import Settings, load_pipeline
from jobs.training import train
from serving.client import Client
from serving.clock import Clock
from tests.conftest import ROOT
from tests.serving.conftest import service_at

NAME = "loyalty"
OUTLINE = Outline(NAME, "member", "loyalty_orders", 3, "us: all")  # a short horizon, and so a small example


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        project=tmp_path / "project",
        lake=str(tmp_path / "lake"),
        landing=str(tmp_path / "landing"),
        reports=tmp_path / "reports",
        mlflow_uri=f"sqlite:///{tmp_path}/mlflow.db",
    )


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def proved(lake: Lake, settings: Settings) -> list[str]:
    """Return what the check says, after making sure that it finds no fault."""
    found = list(Check(lake, settings, load_pipeline(settings.pipelines, NAME)).findings())
    assert [each.line for each in found if each.is_fault] == []
    return [each.line for each in found]


def test_from_nothing_to_a_lookup(settings: Settings, spark: SparkSession, redis_url: str) -> None:
    write(settings, OUTLINE)
    lake, last = Lake(spark, settings.lake), OUTLINE.days[-1]
    assert any(
        "not trained yet: `scoreline train loyalty --as-of D` is next" in line for line in proved(lake, settings)
    )
    run = Run(load_pipeline(settings.pipelines, NAME), last, "new", lake, settings, Clock())
    ingest(run, OUTLINE.days)
    train(spark, run.pipeline, settings, datetime.combine(OUTLINE.as_of, time(), UTC))
    assert any("sample: 200 keys of events/loyalty_orders" in line for line in proved(lake, settings))
    model = resolve(settings.mlflow_uri, NAME, "champion")
    score(run, model.version, model.digest)
    assert publish(run, redis_url) == "live"
    table = {row.key: row.score for row in lake.read(f"scores/{NAME}").collect()}
    assert len(table) > 250
    with service_at(redis_url, "real") as url, Client(url) as client:
        found = client.score(NAME, "00001")
        assert (found.source, found.score) == ("batch", table["00001"])
        assert client.score(NAME, "nobody").source == "fallback"
    takes_back(run, model.version, model.digest)


def takes_back(run: Run, version: str, digest: str) -> None:
    """A refund is one more event, which lowers what was spent from its day on; nothing that was said is changed."""
    lake, following = run.lake, Run(run.pipeline, OUTLINE.as_of, "refund", run.lake, run.settings, Clock())
    before = seen_by(run)
    events = lake.read("events/loyalty_orders").count()
    rows = ["order_id,member,ordered_at,amount,items"]
    rows.append(f"a-refund,00001,{following.day}T10:00:00Z,-12.34,1")
    # A correction of an order of long ago: what was wrong is taken back, and what is right is added, today.
    rows.append(f"wrong-taken-back,00001,{following.day}T11:00:00Z,-100.00,1")
    rows.append(f"right,00001,{following.day}T11:00:00Z,10.00,1")
    path = Path(run.settings.landing) / OUTLINE.source / f"{following.day}.csv"
    path.write_text("\n".join(rows) + "\n")
    ingest(following, [following.day])
    score(following, version, digest)
    assert lake.read("events/loyalty_orders").count() == events + 3
    assert seen_by(run) == before, "what was seen as of the day before stays"
    after = seen_by(following)
    assert after.spent == pytest.approx(before.spent - 102.34)
    assert (after.refunds, after.orders) == (before.refunds + 2, before.orders + 1)


def seen_by(run: Run) -> Row:
    """Return what the model saw of a member, in the run of a day."""
    own = f"key = '00001' AND as_of_date = DATE'{run.as_of.date()}'"
    found = run.lake.read(f"features/{NAME}").where(own).first()
    assert found is not None
    return found


def test_what_is_there_is_not_overwritten_and_a_fault_leaves_nothing(settings: Settings) -> None:
    write(settings, OUTLINE)
    written = files_below(settings.project) + files_below(Path(settings.landing))
    (settings.pipelines / f"{NAME}.yaml").write_text("name: mine\n")
    with pytest.raises(DataFault, match=r"loyalty is there already: choose another name, or remove it"):
        write(settings, OUTLINE)
    with pytest.raises(DataFault, match=r"loyalty_orders is there already"):
        write(settings, Outline("other", "member", "loyalty_orders", 3, "us"))
    for name in ("../loyalty", "Loyalty", "a_stream"):
        with pytest.raises(SpecError, match=r"is not a name|ends with _stream"):
            write(settings, Outline(name, "member", f"{name}_orders".replace("a_stream", "as"), 3, "us"))
    with pytest.raises(SpecError, match="the example has another column 'amount': give the entity key another name"):
        write(settings, Outline("other", "amount", "other_orders", 3, "us"))
    assert (settings.pipelines / f"{NAME}.yaml").read_text() == "name: mine\n"
    assert files_below(settings.project) + files_below(Path(settings.landing)) == written


def test_what_another_pipeline_means_otherwise_is_taken_back(settings: Settings) -> None:
    """The last step proves the pipeline beside the others; until then nothing of it may stay."""
    write(settings, OUTLINE)
    for path in (Path(settings.landing) / OUTLINE.source).iterdir():
        path.unlink()
    (Path(settings.landing) / OUTLINE.source).rmdir()
    before = files_below(settings.project)
    with pytest.raises(SpecError, match="other and loyalty declare this source differently, but share its tables"):
        write(settings, Outline("other", "customer", "loyalty_orders", 3, "us"))
    assert files_below(settings.project) == before
    assert files_below(Path(settings.landing)) == []


def test_the_command_asks_nothing_without_a_terminal_and_says_what_is_next(settings: Settings) -> None:
    places = {"PROJECT": settings.project, "LANDING": settings.landing}
    done = subprocess.run(
        [sys.executable, "-m", "jobs", "new", NAME, "--horizon-days", "3"],
        env={**os.environ, **{f"SCORELINE_{name}": str(value) for name, value in places.items()}},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[3] == f"wrote {settings.pipelines}/{NAME}.yaml"
    assert [line.split()[1] for line in lines[5:-1]] == ["check", "ingest", "train", "check", "score", "publish"]
    assert "ingest loyalty --from 2024-01-01 --to 2024-04-28" in done.stdout
    assert load_pipeline(settings.pipelines, NAME).entity_key == "customer_id"


def test_the_command_asks_for_what_is_missing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs.new import commands

    monkeypatch.setattr(commands, "settings", lambda: settings)
    monkeypatch.setattr(commands, "is_terminal", lambda: True)
    answers = "\nshop_visits\n5\n\n"
    done = CliRunner().invoke(commands.new, [NAME, "--owner", "shop"], input=answers)
    assert done.exit_code == 0, done.output
    assert "Column of the key that a score belongs to [customer_id]:" in done.output
    declared = load_pipeline(settings.pipelines, NAME)
    assert (declared.events[0], declared.label.horizon_days, declared.owner) == ("shop_visits", 5, "shop")
