"""Score: same inputs give the same bits, what fails stays unseen, and who was overtaken shows nothing."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import functions as F

from expectations.errors import ExpectationsFailed
from jobs.errors import ArtefactRefused, DataFault, Fenced, FrameFault, SqlRefused
from jobs.ingest import ingest
from jobs.registry import ModelVersion
from jobs.replacement import Fences, replace_partitions
from jobs.run import Dates, Run
from jobs.score import score
from jobs.tables import APPENDS, events_table, scores_table
from tests.jobs.conftest import DAY, FIRST
from tests.project import Project, bits, purchases, scored
from tests.registered import register_small

SCORES = "scores/purchase_propensity"


def test_every_known_customer_has_one_score_and_all_that_explains_it(
    filled: Project, model: ModelVersion, run: Run
) -> None:
    rows = filled.lake.read(SCORES).where(run.partition).collect()
    known = filled.lake.read("events/transactions").where("event_time < '1998-06-02'").select("customer_id").distinct()
    assert sorted(row.key for row in rows) == sorted(row.customer_id for row in known.collect())
    assert {(row.model_version, row.model_digest, row.run_id) for row in rows} == {
        (model.version, model.digest, "run-7")
    }
    assert {row.events_version for row in rows} == {filled.lake.appended("events/transactions")}


def test_a_rerun_gives_the_same_rows_the_same_bits_and_one_partition(
    filled: Project, model: ModelVersion, run: Run
) -> None:
    """Also when events were delivered late in between: a rerun reads the version that the first run read."""
    before = bits(filled.lake.read(SCORES).where(run.partition))
    filled.deliver(DAY, purchases(DAY, 40, first=150), "late.csv")
    ingest(filled.run(DAY), [DAY])
    scored(filled, model, DAY, "run-7")
    partitions = filled.lake.read(SCORES).where(run.partition)
    assert bits(partitions) == before
    assert partitions.count() == len(before)


def test_events_that_came_twice_count_once(project: Project, tmp_path: Path) -> None:
    """They come again with a later arrival, as what was live is in the day's file too."""
    twice = Project(tmp_path / "twice", project.spark, registry=project.settings.mlflow_uri)
    for each in (project, twice):
        each.deliver(FIRST, purchases(FIRST, 40))
        ingest(each.run(FIRST), [FIRST])
    table = events_table("transactions", project.pipeline().events[1])
    again = project.lake.read(table.name).withColumn("arrived_at", F.expr("arrived_at + INTERVAL 1 HOUR"))
    twice.lake.deliver(again, table, twice.lake.fence(table.name, APPENDS))
    model = register_small(project.settings.mlflow_uri, tmp_path / "report")
    runs = [scored(each, model, DAY) for each in (project, twice)]
    once, both = (bits(run.lake.read(SCORES).where(run.partition)) for run in runs)
    assert once == both
    assert len(once) == 40


def test_rows_know_when_they_were_written_first(filled: Project, model: ModelVersion, run: Run, tmp_path: Path) -> None:
    """A rerun that gives the same keeps that, and other rows are of now: what they replace knows its end."""

    def times(table: str, column: str) -> set[object]:
        rows = filled.lake.read(table).where(run.partition) if filled.lake.has(table) else None
        return {row[0] for row in rows.select(F.unix_micros(column)).distinct().collect()} if rows else set()

    replaced = "scores_superseded/purchase_propensity"
    before, ended = times(SCORES, "scored_at"), times(replaced, "superseded_at")
    scored(filled, model, DAY, "again")
    assert times(SCORES, "scored_at") == before
    other = register_small(filled.settings.mlflow_uri, tmp_path / "report", seed=3)
    scored(filled, other, DAY, "run-7")
    (now,) = times(SCORES, "scored_at")
    assert times(replaced, "superseded_at") - ended == {now}
    ends = filled.lake.read(replaced).where(run.partition).where(F.unix_micros("superseded_at") == F.lit(now))
    assert {row[0] for row in ends.select(F.unix_micros("scored_at")).distinct().collect()} == before
    scored(filled, model, DAY, "run-7")


def test_a_rerun_of_rows_from_before_that_was_kept_does_not_know_it_either(project: Project, tmp_path: Path) -> None:
    project.deliver(FIRST, purchases(FIRST, 5))
    ingest(project.run(FIRST), [FIRST])
    table = scores_table("purchase_propensity")
    project.lake.create(replace(table, columns=table.columns[:-1]))
    model = register_small(project.settings.mlflow_uri, tmp_path / "report")
    scored(project, model, FIRST)
    unknown = project.lake.read(SCORES).withColumn("scored_at", F.lit(None).cast("timestamp"))
    unknown.localCheckpoint().write.format("delta").mode("overwrite").save(project.lake.path(SCORES))
    scored(project, model, FIRST)
    assert {row.scored_at for row in project.lake.read(SCORES).collect()} == {None}


def test_what_other_scores_replace_is_kept(filled: Project, model: ModelVersion, tmp_path: Path) -> None:
    run = scored(filled, model, FIRST)
    before = bits(filled.lake.read(SCORES).where(run.partition))
    other = register_small(filled.settings.mlflow_uri, tmp_path / "report", seed=2)
    scored(filled, other, FIRST)
    assert bits(filled.lake.read(SCORES).where(run.partition)) != before
    replaced = filled.lake.read("scores_superseded/purchase_propensity").where(run.partition)
    assert bits(replaced.where(F.col("model_version") == model.version)) == before
    seen = filled.lake.read("features_superseded/purchase_propensity").where(F.to_date("as_of") == run.as_of.date())
    assert {row.key for row in seen.collect()} == set(before)


def test_what_gets_further_rows_is_kept_too(filled: Project, model: ModelVersion, tmp_path: Path) -> None:
    """A wider population, each row of before being there still: what went live before was made of fewer."""
    day = FIRST + timedelta(days=1)
    narrow = own_sql(filled, tmp_path, "SELECT * FROM ({population}\n) WHERE key <= '00030'", "population")
    run = scored(narrow, model, day)
    before = bits(filled.lake.read(SCORES).where(run.partition))
    scored(filled, model, day)
    after = bits(filled.lake.read(SCORES).where(run.partition))
    assert before.items() < after.items()
    replaced = filled.lake.read("scores_superseded/purchase_propensity").where(run.partition)
    assert bits(replaced) == before
    scored(filled, model, day)
    assert replaced.count() == len(before)


def test_features_that_others_replace_are_kept_also_where_no_score_moves(
    filled: Project, model: ModelVersion, tmp_path: Path
) -> None:
    """Also with a feature that the SQL does not give any more."""
    day = FIRST + timedelta(days=2)
    for number in (1, 2):
        marked = own_sql(filled, tmp_path / f"{number}", f"SELECT *, {number} AS mark FROM ({{features}}\n)")
        score(marked.run(day), model.version, model.digest)
    run = scored(filled, model, day)
    scored(filled, model, day)
    now = filled.lake.read("features/purchase_propensity").where(F.col("as_of_date") == run.as_of.date())
    assert {row.mark for row in now.collect()} == {None}
    for table, many in (("features", {1: now.count(), 2: now.count()}), ("scores", {"test": 2 * now.count()})):
        kept = filled.lake.read(f"{table}_superseded/purchase_propensity")
        by = kept.where(F.col("as_of_date") == run.as_of.date()).groupBy("mark" if table == "features" else "run_id")
        assert {row[0]: row["count"] for row in by.count().collect()} == many


@pytest.mark.parametrize("holds", ["files", "rows"])
def test_a_zombie_commits_nothing(
    filled: Project, model: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holds: str
) -> None:
    """An attempt that was thought dead comes back after another one scored the date: neither table changes.

    The other one has removed its staged files; one that was stopped in the middle of its write has the rows already.
    """
    other = register_small(filled.settings.mlflow_uri, tmp_path / "report", seed=4)
    run = scored(filled, model, FIRST)
    real = replace_partitions

    def overtaken(dates: Any, result: Any, fences: Any, before: Any) -> None:
        monkeypatch.setattr("jobs.score.replace_partitions", real)
        if holds == "rows":
            kept = {name: getattr(result, name).localCheckpoint() for name in ("features", "scores")}
            result = replace(result, **kept)
        scored(filled, other, FIRST)
        real(dates, result, fences, before)

    monkeypatch.setattr("jobs.score.replace_partitions", overtaken)
    with pytest.raises(Fenced, match="another attempt"):
        scored(filled, model, FIRST, "zombie")
    assert {row.model_version for row in filled.lake.read(SCORES).where(run.partition).collect()} == {other.version}


def test_fences_hold_for_both_tables(filled: Project, run: Run) -> None:
    dates = Dates([run], run.staging("score"))
    zombie, first = Fences.of(dates), Fences.of(dates)
    for table in ("features", "scores"):
        name, where = f"{table}/purchase_propensity", f"as_of_date = DATE'{run.as_of.date()}'"
        rows = filled.lake.read(name).where(where)
        filled.lake.replace(rows, name, where, *getattr(first, table))
        with pytest.raises(Fenced):
            filled.lake.replace(rows.limit(3), name, where, *getattr(zombie, table))
        assert filled.lake.read(name).where(where).count() > 3


def test_a_model_that_knows_too_much_is_refused(filled: Project, tmp_path: Path) -> None:
    run = filled.run(DAY)
    late = register_small(filled.settings.mlflow_uri, tmp_path / "r", training_as_of=run.as_of + timedelta(days=1))
    with pytest.raises(DataFault, match="knows labels up to 1998-06-03, after the as_of 1998-06-02"):
        score(run, late.version, late.digest)


def test_another_digest_is_refused(filled: Project, model: ModelVersion) -> None:
    with pytest.raises(ArtefactRefused, match="expects digest 0000"):
        score(filled.run(DAY), model.version, "0000")


def own_sql(project: Project, folder: Path, text: str, kind: str = "features") -> Project:
    """Return the project with other features, or another population."""
    other = project.copied(folder)
    path = other.root / f"jobs/sql/purchase_propensity/{kind}.sql"
    path.write_text(text.replace(f"{{{kind}}}", path.read_text()))
    return other


@pytest.mark.parametrize(
    "case",
    [
        ("SELECT * FROM ({features}\n) WHERE key <> '00041'", FrameFault, "gave 0 rows for key 00041"),
        (
            "SELECT * FROM ({features}\n) UNION ALL SELECT * FROM ({features}\n)",
            FrameFault,
            "features.sql gave 2 rows for key",
        ),
        (
            "SELECT * EXCEPT (recency_days) FROM ({features}\n)",
            DataFault,
            "features recency_days of the model are not",
        ),
        ("SELECT *, rand() AS r FROM ({features}\n)", SqlRefused, r"rand\(\) is refused"),
        (
            "SELECT * EXCEPT (recency_days), -recency_days AS recency_days FROM ({features}\n)",
            ExpectationsFailed,
            "recency_days",
        ),
    ],
)
def test_bad_features_change_nothing(
    filled: Project, model: ModelVersion, run: Run, tmp_path: Path, case: tuple[str, type[Exception], str]
) -> None:
    features, fault, message = case
    versions = [filled.lake.version(f"{table}/purchase_propensity") for table in ("scores", "features")]
    with pytest.raises(fault, match=message):
        score(own_sql(filled, tmp_path, features).run(DAY), model.version, model.digest)
    assert [filled.lake.version(f"{table}/purchase_propensity") for table in ("scores", "features")] == versions
    assert not filled.lake.read(SCORES).where(run.partition).isEmpty()


def test_scores_that_fail_their_suite_are_not_visible(
    filled: Project, model: ModelVersion, run: Run, tmp_path: Path
) -> None:
    other = filled.copied(tmp_path)
    suite = other.root / "expectations/suites/purchase_propensity/scores.yaml"
    low = "- type: expect_column_values_to_be_between\n  kwargs: {column: score, min_value: 0, max_value: 0.000001}\n"
    suite.write_text(low)
    before = filled.lake.version(SCORES)
    with pytest.raises(ExpectationsFailed, match=r"suite scores.*on score"):
        score(other.run(DAY), model.version, model.digest)
    assert filled.lake.version(SCORES) == before


def test_a_feature_that_the_model_does_not_know_is_kept_and_changes_no_score(
    filled: Project, model: ModelVersion, run: Run, tmp_path: Path
) -> None:
    before = bits(filled.lake.read(SCORES).where(run.partition))
    other = own_sql(filled, tmp_path, "SELECT *, length(key) AS key_length FROM ({features}\n)")
    score(other.run(DAY, "run-7"), model.version, model.digest)
    assert bits(filled.lake.read(SCORES).where(run.partition)) == before
    seen = filled.lake.read("features/purchase_propensity")
    assert {row.key_length for row in seen.where("as_of_date = '1998-06-02'").collect()} == {5}
    retyped = own_sql(filled, tmp_path, "SELECT *, 'x' AS key_length FROM ({features}\n)")
    kept = "scores_superseded/purchase_propensity"
    superseded = filled.lake.read(kept).count() if filled.lake.has(kept) else 0
    with pytest.raises(DataFault, match="column key_length is INT in the table and STRING now"):
        score(retyped.run(DAY), model.version, model.digest)
    assert superseded == (filled.lake.read(kept).count() if filled.lake.has(kept) else 0), "nothing replaced it"


@pytest.mark.parametrize(
    ("population", "message"),
    [
        ("SELECT * FROM ({population}\n) UNION ALL SELECT * FROM ({population}\n)", "population.sql gave key 0"),
        ("SELECT repeat(key, 60) AS key, as_of FROM ({population}\n)", "give keys of 1 to 256 bytes"),
    ],
)
def test_a_population_that_cannot_be_looked_up_is_refused(
    filled: Project, model: ModelVersion, tmp_path: Path, population: str, message: str
) -> None:
    other = own_sql(filled, tmp_path, population, "population")
    with pytest.raises(FrameFault, match=message):
        score(other.run(DAY), model.version, model.digest)


def test_scoring_before_any_ingest_says_what_to_run(project: Project, tmp_path: Path) -> None:
    model = register_small(project.settings.mlflow_uri, tmp_path / "report")
    with pytest.raises(DataFault, match=r"there is no events/transactions yet; run `scoreline ingest"):
        score(project.run(DAY), model.version, model.digest)
