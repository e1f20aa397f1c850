"""A range in one job: what runs of its days would have made, and nothing else."""

import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.backfill.job import Order, backfill
from jobs.choice import chosen, chosen_for_run
from jobs.errors import BackfillIncomplete, DataFault
from jobs.ingest import ingest
from jobs.lake import Lake
from jobs.landing import days_between
from jobs.registry import ModelVersion
from jobs.replacement import replace_partitions
from jobs.score import Reading
from tests.jobs.conftest import FIRST
from tests.project import Project, purchases, scored
from tests.registered import register_small

NAME = "purchase_propensity"
SCORES, FEATURES, QUALITY = (f"{table}/{NAME}" for table in ("scores", "features", "quality"))
LATER = FIRST + timedelta(days=2)
DAYS = days_between(FIRST, LATER)
AS_OFS = [day + timedelta(days=1) for day in DAYS]


@pytest.fixture
def shop(filled: Project, model: ModelVersion, tmp_path: Path) -> Project:
    """A copy of the six days of purchases, without scores."""
    copy = replace(filled, folder=tmp_path / "a copy", registry=filled.settings.mlflow_uri)
    for part in ("landing", "lake/events"):
        shutil.copytree(filled.folder / part, copy.folder / part)
    return copy


def fill(project: Project, model: ModelVersion | None, reading: Reading = "recorded", chunk: int = 30) -> list[str]:
    """Score DAYS by the range job, and return what it says."""
    said: list[str] = []
    backfill(project.run(LATER, "range"), Order(DAYS, model, reading, chunk), said.append)
    return said


def rows(frame: DataFrame, *without: str) -> list[Any]:
    return sorted(frame.drop(*without).collect(), key=str)


def seen(project: Project) -> tuple[list[Any], list[Any], list[Any]]:
    """Return what a range and runs of its days must have in common; the events' versions say what was read."""
    measured = project.lake.read(QUALITY).where("step = 'score'")
    return (
        rows(project.lake.read(SCORES), "run_id", "scored_at"),
        rows(project.lake.read(FEATURES)),
        rows(measured, "run_id", "measured_at"),
    )


def test_a_range_makes_what_runs_of_its_days_make(shop: Project, model: ModelVersion, tmp_path: Path) -> None:
    alone = replace(shop, folder=tmp_path / "alone")
    shutil.copytree(shop.folder, alone.folder)
    for day in DAYS:
        scored(alone, model, day)
    said = fill(shop, model)
    assert seen(shop) == seen(alone)
    assert said[-1] == "all 3 dates are scored"
    versions = [shop.lake.version(name) for name in (SCORES, FEATURES)]
    assert fill(shop, model)[0] == "3 of 3 dates have the scores of their model already"
    assert [shop.lake.version(name) for name in (SCORES, FEATURES)] == versions


def test_late_events_enter_a_date_that_is_restated_and_what_was_stays_on_record(
    shop: Project, model: ModelVersion
) -> None:
    fill(shop, model)
    before = rows(shop.lake.read(SCORES))
    late = DAYS[1]
    shop.deliver(late, purchases(late, 5, first=900), "late.csv")
    ingest(shop.run(late), [late])
    fill(shop, model)
    assert rows(shop.lake.read(SCORES)) == before
    fill(shop, model, "newest")
    counts = {row.as_of_date: row["count"] for row in shop.lake.read(SCORES).groupBy("as_of_date").count().collect()}
    old = {each: sum(row.as_of_date == each for row in before) for each in AS_OFS}
    assert counts == {AS_OFS[0]: old[AS_OFS[0]], AS_OFS[1]: old[AS_OFS[1]] + 5, AS_OFS[2]: old[AS_OFS[2]] + 5}
    superseded = shop.lake.read(f"scores_superseded/{NAME}")
    assert rows(superseded, "superseded_at") == before
    stood = superseded.alias("was").join(shop.lake.read(SCORES).alias("now"), ["as_of_date", "key"])
    assert stood.where("was.superseded_at <> now.scored_at OR was.scored_at >= now.scored_at").isEmpty()
    fill(shop, model, "newest")
    assert rows(superseded, "superseded_at") == before


def test_a_date_at_fault_is_named_and_the_others_are_done(shop: Project, model: ModelVersion, tmp_path: Path) -> None:
    """From the second date on there are too many customers for this suite."""
    scored(shop, model, DAYS[0])
    few = shop.lake.read(SCORES).count()
    strict = shop.copied(tmp_path)
    suite = strict.root / f"expectations/suites/{NAME}/features.yaml"
    suite.write_text(suite.read_text().replace("min_value: 1}", f"min_value: 1, max_value: {few}}}", 1))
    with pytest.raises(BackfillIncomplete) as told:
        fill(strict, model, "newest")
    assert f"2 of 3 dates are not scored, and all others are: {AS_OFS[1]}: suite features" in str(told.value)
    assert f"{AS_OFS[2]}: suite features" in str(told.value)
    assert told.value.exit_code == 3
    assert {row.as_of_date for row in shop.lake.read(SCORES).select("as_of_date").distinct().collect()} == {AS_OFS[0]}


def test_who_scores_a_date_of_a_range_meanwhile_is_not_overwritten_by_it(
    shop: Project, model: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole part is refused then; in halves, what they did not do is done."""

    def overtaken(*arguments: Any) -> None:
        monkeypatch.setattr("jobs.score.replace_partitions", replace_partitions)
        scored(shop, model, DAYS[1], "faster")
        replace_partitions(*arguments)

    monkeypatch.setattr("jobs.score.replace_partitions", overtaken)
    said = fill(shop, model)
    assert len(said) == 3, "two halves, for the part as a whole was refused"
    assert said[-1] == "all 3 dates are scored"
    assert {row.run_id for row in shop.lake.read(SCORES).where(F.col("as_of_date") == AS_OFS[1]).collect()} == {
        "faster"
    }
    counts = [F.count_distinct("run_id"), F.count_distinct("key"), F.count("*")]
    for _, runs, keys, count in shop.lake.read(SCORES).groupBy("as_of_date").agg(*counts).collect():
        assert (runs, keys) == (1, count)


def test_a_range_that_is_killed_between_its_tables_ends_as_an_undisturbed_one(
    shop: Project, model: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = replace(shop, folder=tmp_path / "undisturbed")
    shutil.copytree(shop.folder, undisturbed.folder)
    other = register_small(shop.settings.mlflow_uri, tmp_path / "report", seed=6)
    for each in (shop, undisturbed):
        fill(each, model)
    real = Lake.replace

    def killed(lake: Lake, frame: DataFrame, name: str, *others: Any) -> None:
        if name == SCORES:
            raise KeyboardInterrupt
        real(lake, frame, name, *others)

    monkeypatch.setattr(Lake, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        fill(shop, other)
    monkeypatch.setattr(Lake, "replace", real)
    fill(shop, other)
    fill(undisturbed, other)
    for table in ("scores", "features", "scores_superseded", "features_superseded"):
        found = (rows(each.lake.read(f"{table}/{NAME}"), "scored_at", "superseded_at") for each in (shop, undisturbed))
        assert next(found) == next(found)


def test_a_model_is_the_champion_the_recorded_one_or_a_version(
    shop: Project, model: ModelVersion, tmp_path: Path
) -> None:
    scored(shop, model, DAYS[0])
    champion = register_small(shop.settings.mlflow_uri, tmp_path / "report", seed=5)
    settings, pipeline = shop.settings, shop.pipeline()
    assert chosen(settings, pipeline, "champion", AS_OFS[0]).version == champion.version
    assert chosen(settings, pipeline, model.version, AS_OFS[0]).digest == model.digest
    assert chosen(settings, pipeline, "recorded", AS_OFS[0]).digest == model.digest
    with pytest.raises(DataFault, match=r"no scores as of 1998-05-30.* choose `champion` or the number of a version"):
        chosen(settings, pipeline, "recorded", AS_OFS[1])
    renamed = pipeline.model_copy(update={"model": pipeline.model.model_copy(update={"name": "other"})})
    with pytest.raises(DataFault, match=r"model is other now: `scoreline backfill \S+ --model recorded`"):
        chosen(settings, renamed, "recorded", AS_OFS[0])
    name = str(tmp_path)
    first = chosen_for_run(settings, pipeline, "recorded", (name, AS_OFS[0]))
    scored(shop, champion, DAYS[0])
    assert chosen_for_run(settings, pipeline, "recorded", (name, AS_OFS[0])) == first
    with pytest.raises(BackfillIncomplete, match=r"2 of 3 dates .*1998-05-30: scores/\S+ has no"):
        fill(shop, None, "newest")
    assert {row.model_version for row in shop.lake.read(SCORES).collect()} == {champion.version}
