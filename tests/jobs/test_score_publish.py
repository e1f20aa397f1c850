"""From events to Redis: same inputs give the same bits, what fails stays unseen, what is live is what the table has."""

import shutil
import struct
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from expectations.errors import ExpectationsFailed
from jobs import generation
from jobs.errors import ArtefactRefused, DataFault, Fenced, FrameFault, GenerationDiffers, NothingToPublish, SqlRefused
from jobs.ingest import ingest
from jobs.landing import days_between
from jobs.publish import publish
from jobs.registry import ModelVersion
from jobs.run import Run
from jobs.score import score
from serving.keys import block_key
from serving.store import Store
from tests.project import Project, purchases
from tests.registered import register_small

FIRST, DAY = date(1998, 5, 28), date(1998, 6, 1)
NEXT = DAY + timedelta(days=1)
SCORES = "scores/purchase_propensity"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> Project:
    """Six days of purchases by some 200 customers, ingested."""
    project = Project(tmp_path_factory.mktemp("scoring") / "a project", spark)
    for number, day in enumerate(days_between(FIRST, NEXT)):
        project.deliver(day, purchases(day, 40, first=1 + 30 * number))
    ingest(project.run(NEXT), days_between(FIRST, NEXT))
    return project


@pytest.fixture(scope="module")
def model(project: Project) -> ModelVersion:
    return register_small(project.settings.mlflow_uri, project.folder / "report")


@pytest.fixture(scope="module")
def run(project: Project, model: ModelVersion) -> Run:
    """The run of DAY, scored."""
    return scored(project, model, DAY, "run-7")


@pytest.fixture(scope="module")
def next_run(project: Project, model: ModelVersion) -> Run:
    """The run of the day after, scored."""
    return scored(project, model, NEXT)


@pytest.fixture(scope="module")
def redis_url(redis_url: str) -> str:
    """A database of its own on the session's Redis."""
    return redis_url.removesuffix("/0") + "/3"


@pytest.fixture
def store(redis_url: str) -> Iterator[Store]:
    with Store(redis_url) as store:
        store._redis.flushdb()
        yield store


def scored(project: Project, model: ModelVersion, day: date, run_id: str = "test") -> Run:
    run = project.run(day, run_id)
    score(run, model.version, model.digest)
    return run


def bits(frame: DataFrame) -> dict[str, bytes]:
    return {row.key: struct.pack("<f", row.score) for row in frame.collect()}


def test_every_known_customer_has_one_score_and_all_that_explains_it(
    project: Project, model: ModelVersion, run: Run
) -> None:
    rows = project.lake.read(SCORES).where(run.partition).collect()
    known = project.lake.read("events/transactions").where("event_time < '1998-06-02'").select("customer_id").distinct()
    assert sorted(row.key for row in rows) == sorted(row.customer_id for row in known.collect())
    assert {(row.model_version, row.model_digest, row.run_id) for row in rows} == {
        (model.version, model.digest, "run-7")
    }
    assert {row.events_version for row in rows} == {project.lake.version("events/transactions")}


def test_a_rerun_gives_the_same_rows_the_same_bits_and_one_partition(
    project: Project, model: ModelVersion, run: Run
) -> None:
    """Also when events were delivered late in between: a rerun reads the version that the first run read."""
    before = bits(project.lake.read(SCORES).where(run.partition))
    project.deliver(DAY, purchases(DAY, 40, first=150), "late.csv")
    ingest(project.run(DAY), [DAY])
    scored(project, model, DAY, "run-7")
    partitions = project.lake.read(SCORES).where(run.partition)
    assert bits(partitions) == before
    assert partitions.count() == len(before)


def test_what_other_scores_replace_is_kept(project: Project, model: ModelVersion, tmp_path: Path) -> None:
    run = scored(project, model, FIRST)
    before = bits(project.lake.read(SCORES).where(run.partition))
    other = register_small(project.settings.mlflow_uri, tmp_path / "report", seed=2)
    scored(project, other, FIRST)
    assert bits(project.lake.read(SCORES).where(run.partition)) != before
    kept = project.lake.read("scores_superseded/purchase_propensity").where(F.col("model_version") == model.version)
    assert bits(kept) == before


def test_a_zombie_commits_nothing(project: Project, run: Run) -> None:
    zombie = project.lake.fence(SCORES, f"purchase_propensity/{NEXT}/champion")
    rows = project.lake.read(SCORES).where(run.partition)
    project.lake.replace(rows, SCORES, run.partition, project.lake.fence(SCORES, zombie.app_id))
    before = bits(project.lake.read(SCORES).where(run.partition))
    with pytest.raises(Fenced):
        project.lake.replace(project.lake.read(SCORES).where(run.partition).limit(3), SCORES, run.partition, zombie)
    assert bits(project.lake.read(SCORES).where(run.partition)) == before


def test_a_model_that_knows_too_much_is_refused(project: Project, tmp_path: Path) -> None:
    run = project.run(DAY)
    late = register_small(project.settings.mlflow_uri, tmp_path / "r", training_as_of=run.as_of + timedelta(days=1))
    with pytest.raises(DataFault, match="knows labels up to 1998-06-03, after the as_of 1998-06-02"):
        score(run, late.version, late.digest)


def test_another_digest_is_refused(project: Project, model: ModelVersion) -> None:
    with pytest.raises(ArtefactRefused, match="expects digest 0000"):
        score(project.run(DAY), model.version, "0000")


def own_sql(project: Project, folder: Path, features: str) -> Project:
    """Return the project with other features."""
    other = folder / "project"
    for part in ("dags/pipelines", "expectations/suites", "jobs/sql"):
        shutil.copytree(project.root / part, other / part, dirs_exist_ok=True)
    path = other / "jobs/sql/purchase_propensity/features.sql"
    path.write_text(features.replace("{features}", path.read_text()))
    return replace(project, root=other)


@pytest.mark.parametrize(
    "case",
    [
        ("SELECT * FROM ({features}\n) WHERE key <> '00041'", FrameFault, "no row for key 00041"),
        ("SELECT * FROM ({features}\n) UNION ALL SELECT * FROM ({features}\n)", FrameFault, "rows for a spine of"),
        ("SELECT * EXCEPT (recency_days) FROM ({features}\n)", DataFault, "gives no recency_days"),
        ("SELECT *, rand() AS r FROM ({features}\n)", SqlRefused, r"rand\(\) is refused"),
        (
            "SELECT * EXCEPT (recency_days), -recency_days AS recency_days FROM ({features}\n)",
            ExpectationsFailed,
            "recency_days",
        ),
    ],
)
def test_bad_features_change_nothing(
    project: Project, model: ModelVersion, run: Run, tmp_path: Path, case: tuple[str, type[Exception], str]
) -> None:
    features, fault, message = case
    versions = [project.lake.version(f"{table}/purchase_propensity") for table in ("scores", "features")]
    with pytest.raises(fault, match=message):
        score(own_sql(project, tmp_path, features).run(DAY), model.version, model.digest)
    assert [project.lake.version(f"{table}/purchase_propensity") for table in ("scores", "features")] == versions
    assert not project.lake.read(SCORES).where(run.partition).isEmpty()


def test_what_is_live_is_what_the_table_has(project: Project, run: Run, store: Store, redis_url: str) -> None:
    assert publish(run, redis_url) == "live"
    head = store.head("purchase_propensity")
    assert head is not None
    expected = bits(project.lake.read(SCORES).where(run.partition))
    blocks = dict(store.read_blocks(head.pipeline, head.token, range(head.layout.buckets)))
    for key, score_bits in expected.items():
        hashed = head.layout.hash_of(key)
        found = head.layout.find(blocks[head.layout.bucket_of(hashed)], head.token, hashed)
        assert found is not None
        assert struct.pack("<f", found[0]) == score_bits
    assert head.rows == len(expected)


def test_an_older_date_is_history_only(project: Project, run: Run, next_run: Run, store: Store, redis_url: str) -> None:
    assert publish(next_run, redis_url) == "live"
    live = store.observe("purchase_propensity")[0]
    assert publish(run, redis_url) == "history only"
    assert store.observe("purchase_propensity")[0] == live
    events = project.lake.read("publications/purchase_propensity").orderBy("at").collect()
    assert events[-1].event == "history only"
    assert "as of 1998-06-03 is newer" in events[-1].note


def test_publishing_again_is_a_newer_generation_of_the_same(run: Run, store: Store, redis_url: str) -> None:
    publish(run, redis_url)
    first = store.head("purchase_propensity")
    publish(run, redis_url)
    second = store.head("purchase_propensity")
    assert first is not None
    assert second is not None
    assert second.token > first.token
    assert (second.checksum, second.rows) == (first.checksum, first.rows)


def test_a_date_without_scores_is_refused(project: Project, run: Run, redis_url: str) -> None:
    with pytest.raises(NothingToPublish, match="no scores as of 1998-06-01"):
        publish(project.run(DAY - timedelta(days=1)), redis_url)


@pytest.mark.parametrize("damage", ["flipped", "lost", "doubled"])
def test_a_generation_that_differs_is_found(
    run: Run, store: Store, redis_url: str, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(run, redis_url)
    live = store.observe("purchase_propensity")[0]
    real = generation.read_back

    def after_damage(spread: DataFrame, built: generation.Generation) -> object:
        redis: Any = store._redis
        first, second = (block_key(built.pipeline, built.token, bucket) for bucket in (0, 1))
        if damage == "flipped":
            redis.setrange(first, 40, bytes([redis.getrange(first, 40, 40)[0] ^ 1]))
        elif damage == "lost":
            redis.delete(first)
        else:
            redis.set(second, redis.get(first))
        return real(spread, built)

    monkeypatch.setattr(generation, "read_back", after_damage)
    with pytest.raises(GenerationDiffers, match=r"generation \d+"):
        publish(run, redis_url)
    assert store.observe("purchase_propensity")[0] == live
