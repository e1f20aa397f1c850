"""Explanations and replays of a shop: runs of three dates, one of them scored twice, and a stream."""

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from mlflow import MlflowClient
from pyspark.sql import SparkSession
from rich.console import Console

from jobs.errors import ReplayDiffers
from jobs.explain.explanation import Explanation, explain, look
from jobs.explain.recompute import Models, passes
from jobs.explain.recorded import all_scores, rows_of
from jobs.explain.reproduce import Reproduction, Sample, drawn, reproduce
from jobs.explain.screen import Screen, as_json
from jobs.ingest import ingest
from jobs.landing import days_between
from jobs.maintain import maintain
from jobs.run import Run, as_of_day
from serving.store import Store
from tests.conftest import free_port
from tests.jobs.conftest import DAY, FIRST, NEXT
from tests.jobs.replayed import DAY as LAST
from tests.jobs.replayed import Replay
from tests.jobs.shop import EVENTS, NAME, NOW, SECOND, opened, rows
from tests.jobs.test_cli import scoreline
from tests.project import Project, purchases, scored
from tests.registered import register_small

BOUGHT, NEW, TWICE = "00002", "00099", "00003"
HELD = ("scores", "scores_superseded", "scores_live", "features", "features_superseded")


@dataclass(frozen=True)
class Place:
    """A project, and the run that asks."""

    project: Project

    @property
    def run(self) -> Run:
        return self.project.run(NEXT, "asking")

    def explained(self, key: str, at: datetime | None = None) -> Explanation:
        return explain(self.run, look(self.run, key, at or datetime.now(UTC)))

    def reproduced(self, many: int = 1000, seed: int = 0) -> Reproduction:
        return reproduce(self.run, drawn(self.run, many, seed))

    def table(self, kind: str) -> DeltaTable:
        return DeltaTable(self.project.settings.table(f"{kind}/{NAME}"))


@pytest.fixture(scope="module")
def place(spark: SparkSession, jobs_redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """DAY is live; FIRST was scored by another model too; the stream scored some between DAY's run and NEXT's."""
    folder = tmp_path_factory.mktemp("explained")
    with Store(jobs_redis_url) as store:
        store.ask("FLUSHDB")
        with opened(Project(folder, spark), store, jobs_redis_url, folder) as shop:
            shop.happens(rows((BOUGHT, "25.00"), (NEW, "12.00")), NOW)
            shop.happens(rows((TWICE, "100.00")), NOW + SECOND)
            shop.happens(rows((TWICE, "1.00")), NOW + 2 * SECOND)
            project, head = shop.project, shop.head
        first = register_small(project.settings.mlflow_uri, folder / "second", seed=2)
        scored(project, first, FIRST, "first")
        model = replace(first, version=head.model.version, digest=head.model.digest)
        scored(project, model, FIRST, "again")
        project.deliver(NEXT, purchases(NEXT, 20))
        ingest(project.run(NEXT), [NEXT])
        scored(project, model, NEXT, "next")
        yield Place(project)


@pytest.fixture(scope="module")
def told(place: Place) -> Explanation:
    """Why 00001 has the score that is served."""
    return place.explained("00001")


@pytest.fixture
def copy(place: Place, tmp_path: Path) -> Place:
    """The same, for a test to change."""
    shutil.copytree(place.project.folder, tmp_path / "copy")
    return Place(replace(place.project, folder=tmp_path / "copy"))


def without_history(place: Place) -> None:
    """Let vacuum leave the newest version of each table alone."""
    none = "'delta.deletedFileRetentionDuration' = 'interval 0 hours'"
    for table in (EVENTS, *(f"{kind}/{NAME}" for kind in HELD)):
        path = place.project.lake.path(table)
        place.project.spark.sql(f"ALTER TABLE delta.`{path}` SET TBLPROPERTIES ({none})")


def text(told: Explanation, *, terminal: bool = False) -> str:
    out = StringIO()
    Screen(NAME, told).show(Console(file=out, force_terminal=terminal, width=200, color_system=None))
    return out.getvalue()


def assert_adds_up(told: Explanation) -> None:
    made, row = told.contributions, told.subject.served.row
    assert made is not None
    assert row is not None
    assert made.mean + sum(made.parts.values()) == pytest.approx(row.score, abs=1e-7)


def test_a_customer_of_the_generation(told: Explanation) -> None:
    served, replay = told.subject.served, told.replay
    assert (served.source, told.subject.gone) == ("batch", ())
    assert served.row is not None
    assert (served.row.as_of, served.row.run_id) == (as_of_day(DAY), "test")
    assert replay is not None
    assert replay.agrees
    assert replay.seen is not None
    assert told.place is not None
    assert told.place.of == 30
    assert 0 < told.place.higher + told.place.lower < 30
    assert_adds_up(told)
    # They bought on both days, so that what was spent has doubled; whether it is a lot, the model knows best.
    assert told.change is not None
    assert told.change.row.as_of == as_of_day(FIRST)
    assert told.change.row.model == served.row.model, "what was replaced does not count"
    assert {name: (old, new) for name, old, new in told.change.features}["spent_total"] == (11.5, 23.0)


def test_a_customer_whom_the_stream_scored(place: Place) -> None:
    told = place.explained(BOUGHT)
    served = told.subject.served
    assert served.source == "stream"
    assert served.row is not None
    assert served.row.as_of == NOW
    assert told.replay is not None
    assert told.replay.agrees
    assert told.replay.seen is None
    assert told.change is not None
    assert told.change.row.as_of == as_of_day(DAY)
    changed = {name: new for name, _, new in told.change.features}
    assert changed["spent_total"] == 12.5 + 12.5 + 25
    assert_adds_up(told)


def test_a_new_customer_with_features_that_are_undefined(place: Place) -> None:
    told = place.explained(NEW)
    assert told.features is not None
    assert told.features["gap_mean_days"] is None
    assert told.change is None
    assert_adds_up(told)
    assert "gap_mean_days = undefined" in text(told)


def test_each_row_of_a_key_is_computed_from_the_events_of_its_own_version(place: Place) -> None:
    scores = all_scores(place.run.lake, NAME)
    assert scores is not None
    live = [row for row in rows_of(scores.where(f"key = '{TWICE}'")) if row.kind == "stream"]
    assert len({row.events_version for row in live}) == 2
    assert len(passes(live)) == 2
    assert look(place.run, TWICE, datetime.now(UTC)).served.row == live[-1]


def test_a_key_that_nobody_knows(place: Place) -> None:
    subject = look(place.run, "nobody", datetime.now(UTC))
    assert "unknown, misspelt" in subject.gone[0]
    told = explain(place.run, subject)
    assert (told.subject.served.source, told.subject.served.score, told.replay) == ("fallback", 0.05, None)
    assert "0.050000, from the fallback" in text(told)
    assert "the pipeline's constant, from the head of that generation" in text(told)


def test_before_anything_was_live(place: Place) -> None:
    told = place.explained("00001", as_of_day(FIRST) - timedelta(days=1))
    assert told.subject.served.source == "nothing"
    assert "no score was served: no generation was live then" in text(told)


def test_the_screen_has_a_bar_for_each_feature_and_a_log_has_lines(told: Explanation) -> None:
    shown, logged = text(told, terminal=True), text(told)
    assert "█" in shown
    assert "│" in shown
    assert "█" not in logged
    assert told.contributions is not None
    for name in told.contributions.parts:
        assert name in shown
        assert f"  {name} = " in logged
    assert "computed again from events, features.sql and model: score the same bits; features the same bits" in logged


def test_machines_get_all_of_it(told: Explanation) -> None:
    found: dict[str, Any] = json.loads(json.dumps(as_json(NAME, told), allow_nan=False))
    assert found["served"]["source"] == "batch"
    assert found["replay"] == {
        "score": found["row"]["score"], "same_score": True, "same_features": True, "differing": [],
    }  # fmt: skip
    assert math.isclose(
        found["contributions"]["mean"] + sum(found["contributions"]["parts"].values()), found["row"]["score"],
        abs_tol=1e-7,
    )  # fmt: skip
    assert len(found["features"]) == 18


def test_what_was_tampered_with_is_found(copy: Place) -> None:
    at = f"as_of_date = '{as_of_day(DAY).date()}'"
    copy.table("features").update({"spent_total": "spent_total + 0.01"}, predicate=f"key = '00001' AND {at}")
    copy.table("scores_live").update({"score": "score + 0.001"}, predicate=f"key = '{BOUGHT}'")
    told = copy.explained("00001")
    assert told.replay is not None
    assert (told.replay.differing, told.replay.same_score) == (("spent_total",), True)
    assert "features DIFFER: spent_total" in text(told)
    scores = all_scores(copy.run.lake, NAME)
    assert scores is not None
    some = rows_of(scores.where(f"{at} AND key IN ('00001', '{BOUGHT}')"))
    found = reproduce(copy.run, Sample(some, Models.of(copy.run, some)))
    with pytest.raises(ReplayDiffers, match=r"2 of 3 scores are not what") as raised:
        found.require_agreement()
    assert "00001 as of 1998-06-02T00:00:00+0000 (batch): spent_total" in str(raised.value)
    assert f"{BOUGHT} as of 1998-06-02T09:00:00+0000 (stream): score " in str(raised.value)


def test_a_model_that_was_deleted_is_told_before(copy: Place) -> None:
    client = MlflowClient(copy.project.settings.mlflow_uri)
    client.delete_model_version(NAME, "1")
    subject = look(copy.run, "00001", datetime.now(UTC))
    assert "there is no version 1 of model purchase_propensity" in subject.gone[0]
    told = explain(copy.run, subject)
    assert (told.replay, told.contributions) == (None, None)
    assert told.features is not None, "what the model saw is on record"
    assert told.place is not None
    sample = drawn(copy.run, 1000, 0)
    assert [line for line in sample.gone() if "cannot be computed again: there is no version 1" in line]
    gone = {row.model for row in sample.rows} - set(sample.models.there)
    assert {model.version for model in gone} == {"1"}


def test_a_feature_that_is_gone_from_the_sql_is_told_with_all_that_is_on_record(copy: Place, tmp_path: Path) -> None:
    project = copy.project.copied(tmp_path)
    path = project.root / f"jobs/sql/{NAME}/features.sql"
    path.write_text(f"SELECT * EXCEPT (recency_days) FROM ({path.read_text()}\n)")
    without = Place(project)
    told = without.explained("00001")
    assert "features.sql is not what it was: features recency_days of the model are not" in told.fault
    assert told.features is not None
    assert told.change is not None
    assert told.change.features
    assert_adds_up(told)
    assert "cannot be computed again: features.sql is not what it was" in text(told)
    found = without.reproduced(20)
    assert (list(found.replays), sum(int(line.split()[0]) for line in found.gone())) == ([], 20)


def test_events_that_are_gone_are_told_before(copy: Place) -> None:
    shutil.rmtree(copy.project.lake.path(EVENTS))
    subject = look(copy.run, "00001", datetime.now(UTC))
    assert subject.gone == (f"there is no {EVENTS} any more: no score can be computed again",)
    told = explain(copy.run, subject)
    assert told.fault == subject.gone[0]
    assert told.features is not None
    assert_adds_up(told)


def test_without_the_registry_what_is_on_record_is_told(copy: Place) -> None:
    away = Place(replace(copy.project, registry=f"http://127.0.0.1:{free_port()}"))
    told = away.explained("00001")
    assert "does not answer" in told.subject.gone[0]
    assert (told.replay, told.contributions) == (None, None)
    assert told.place is not None


def test_scores_of_a_date_that_are_gone_are_told_before(copy: Place) -> None:
    copy.table("scores").delete(f"as_of_date = '{as_of_day(DAY).date()}'")
    subject = look(copy.run, "00001", datetime.now(UTC))
    assert "no scores as of 1998-06-02, which generation 1 was made of, are on record" in subject.served.note
    assert "what follows is about the newest score that was on record" in subject.gone[0]
    assert subject.served.row is not None
    assert subject.served.row.as_of == as_of_day(NEXT)


def test_all_scores_are_reproduced_also_after_maintenance_of_no_retention(copy: Place) -> None:
    """Compaction and vacuum remove what no version has: replay reads rows of the newest."""
    lake = copy.project.lake
    without_history(copy)
    told = maintain(lake, copy.project.pipeline())
    assert {line.split(":")[0] for line in told} >= {EVENTS, *(f"{kind}/{NAME}" for kind in HELD), f"quality/{NAME}"}
    folder = Path(lake.path(f"scores/{NAME}"))
    files = {str(path.relative_to(folder)) for path in folder.rglob("*.parquet") if "_delta_log" not in str(path)}
    assert len(files) == lake.file_count(f"scores/{NAME}"), "old versions are gone"
    found = copy.reproduced()
    found.require_agreement()
    assert {(replay.row.kind, replay.row.date) for replay in found.replays} == {
        ("superseded", as_of_day(FIRST).date()),
        *(("batch", as_of_day(day).date()) for day in (FIRST, DAY, NEXT)),
        ("stream", NOW.date()),
    }
    assert all(replay.seen is not None for replay in found.replays if replay.row.kind != "stream")
    lines = list(found.table())
    assert lines[0].split("  ")[0] == "as of"
    assert lines[-1].split()[:2] == ["all", str(len(found.replays))]


def test_a_sample_is_the_same_for_the_same_seed(place: Place) -> None:
    one, same, other = (drawn(place.run, 20, seed).rows for seed in (0, 0, 1))
    assert one == same
    assert one != other
    assert len(one) == 20


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("explain", NAME), "Missing argument 'KEY'"),
        (("explain", NAME, "00001", "--at", "noon"), "'noon' is no instant; write such as 1998-06-02T09:30:00Z"),
        (("reproduce", NAME, "--sample", "0"), "0 is not in the range"),
    ],
)
def test_a_wrong_use_is_said(command: tuple[str, ...], message: str) -> None:
    done = scoreline(*command)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.soak
def test_a_thousand_scores_of_runs_and_stream_are_the_same(
    spark: SparkSession, jobs_redis_url: str, tmp_path: Path
) -> None:
    """Real purchases: 17 months as history, two days come live, then three dates are scored, one of them twice."""
    played = Replay(tmp_path / "played", spark, date(1997, 1, 1), 2)
    model = register_small(played.project.settings.mlflow_uri, tmp_path / "report")
    with Store(jobs_redis_url) as store:
        store.ask("FLUSHDB")
        played.begin(model, 6)
        played.publish(jobs_redis_url)
        played.undisturbed(store, tmp_path / "checkpoint")
    other = register_small(played.project.settings.mlflow_uri, tmp_path / "other", seed=2)
    ingest(played.project.run(played.last), days_between(LAST + timedelta(days=1), played.last))
    for day, made in ((LAST + timedelta(days=1), model), (LAST, other), (played.last, other)):
        scored(played.project, made, day)
    place = Place(played.project)
    for _ in range(2):
        found = place.reproduced(1000)
        found.require_agreement()
        assert len(found.replays) == 1000
        assert {replay.row.kind for replay in found.replays} == {"batch", "superseded", "stream"}
        without_history(place)
        maintain(played.project.lake, played.project.pipeline())
