"""Compaction: fewer files, the same rows, and nobody who reads, writes or streams meanwhile is disturbed."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import Barrier, Event

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from pyspark.sql import SparkSession

from jobs import maintain as maintain_module
from jobs.errors import Fenced
from jobs.ingest import ingest
from jobs.maintain import maintain
from jobs.stream.batch import Batches
from jobs.stream.live import LiveEvents
from jobs.stream.query import start
from jobs.tables import APPENDS, events_table, live_scores_table
from serving.store import Store
from tests.jobs.conftest import DAY
from tests.jobs.logs import aged
from tests.jobs.shop import EVENTS, NAME, NOW, SECOND, Shop, by_batch, opened, rows, score_bits
from tests.project import Project, purchases

LIVE = f"scores_live/{NAME}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("maintained")


@pytest.fixture(scope="module")
def shop(spark: SparkSession, jobs_redis_url: str, folder: Path) -> Iterator[Shop]:
    with Store(jobs_redis_url) as store:
        store.ask("FLUSHDB")
        with opened(Project(folder, spark), store, jobs_redis_url, folder) as shop:
            yield shop


@pytest.fixture
def ingested(project: Project) -> Project:
    """A day of events, and five live ones after it."""
    project.deliver(DAY, purchases(DAY, 30))
    ingest(project.run(DAY), [DAY])
    live = LiveEvents(project.settings.table(EVENTS))
    for number in range(5):
        live.append(rows((f"{number:05d}", "1.00")), NOW + number * SECOND)
    return project


def standing(project: Project, version: int) -> list[str]:
    """Return the events as they stood after an append."""
    return sorted(map(str, project.lake.read_at(EVENTS, version).collect()))


def test_a_stream_scores_nothing_again_and_loses_nothing(shop: Shop) -> None:
    for number in range(4):
        then = shop.happens(rows((f"{number:05d}", "1.00")), NOW + number * SECOND)
    lake = shop.project.lake
    before, scores, lines = standing(shop.project, then), shop.batches.scorer.sink.keys, lake.read(LIVE).count()
    told = maintain(lake, shop.site.pipeline)
    assert any(line.startswith(f"{EVENTS}: 5 files before, 1 now; ") for line in told), told
    assert any(line.startswith(f"{LIVE}: 4 files before, 1 now; ") for line in told), told
    shop.settle()
    assert (shop.batches.scorer.sink.keys, lake.read(LIVE).count()) == (scores, lines)
    assert standing(shop.project, then) == before
    with ThreadPoolExecutor(1) as beside:
        compaction = beside.submit(maintain, lake, shop.site.pipeline)
        later = [shop.live.append(rows((f"{n:05d}", "2.00")), NOW + n * SECOND) for n in range(10, 20)]
        compaction.result()
    shop.settle()
    fresh = shop.fresh()
    assert {entry.version for entry in fresh.values()} >= {later[-1]}
    assert fresh.keys() == {f"{n:05d}" for n in (*range(4), *range(10, 20))}
    assert shop.kept() == fresh
    assert score_bits(fresh) == by_batch(shop, fresh)
    assert lake.read(LIVE).count() == lines + 10
    assert standing(shop.project, then) == before


def test_a_stream_that_stood_still_reads_what_was_compacted_away(shop: Shop, folder: Path) -> None:
    shop.query.stop()
    for number in (27, 28):
        shop.live.append(rows((f"{number:05d}", "1.00")), NOW + number * SECOND)
    maintain(shop.project.lake, shop.site.pipeline)
    again = start(shop.site, Batches(shop.site, Event()).process, str(folder / "checkpoint"))
    try:
        again.processAllAvailable()
    finally:
        again.stop()
    assert shop.fresh().keys() >= {"00027", "00028"}


def test_ids_of_catch_ups_are_forgotten_after_a_month_and_no_others(project: Project) -> None:
    """For delta-rs and for Spark, in the log and in a checkpoint of each."""
    events = events_table(*project.pipeline().events)
    for table in (live_scores_table(NAME), events):
        project.lake.create(table)
        path, month = project.settings.table(table.name), timedelta(days=30)
        ages = {"past": month + timedelta(hours=1), "near": month - timedelta(hours=1), APPENDS: timedelta(0)}
        marks = [Transaction(name, 7, int((time.time() - age.total_seconds()) * 1000)) for name, age in ages.items()]
        nothing = pa.schema(DeltaTable(path).schema().to_arrow()).empty_table()
        write_deltalake(path, nothing, mode="append", commit_properties=CommitProperties(app_transactions=marks))
        forgotten = set() if table is events else {"past"}
        for _ in range(2):
            found = DeltaTable(path)
            for name in ages:
                assert found.transaction_version(name) == (None if name in forgotten else 7)
                assert project.lake.fence(table.name, name).version == (0 if name in forgotten else 8)
            found.create_checkpoint()


def test_the_numbers_of_appends_outlive_the_log_that_they_were_written_to(ingested: Project) -> None:
    """Compaction, vacuum, a checkpoint, and a log without what came before: for delta-rs and for Spark."""
    lake, path = ingested.lake, ingested.settings.table(EVENTS)
    kept = ", ".join(f"'delta.{name}RetentionDuration' = 'interval 0 hours'" for name in ("log", "deletedFile"))
    lake.spark.sql(f"ALTER TABLE delta.`{path}` SET TBLPROPERTIES ({kept})")
    last = lake.appended(EVENTS)
    maintain(lake, ingested.pipeline())
    table = DeltaTable(path)
    table.create_checkpoint()
    table.cleanup_metadata()
    assert not Path(path, "_delta_log", f"{0:020}.json").exists()
    assert DeltaTable(path).transaction_version(APPENDS) == lake.appended(EVENTS) == last == 5
    assert DeltaTable(path).protocol().min_reader_version == 1
    assert len(standing(ingested, last)) == len(DeltaTable(path).to_pyarrow_table()) == 35
    assert LiveEvents(path).append(rows(("00001", "1.00")), NOW) == last + 1


def test_two_at_once_do_no_harm(ingested: Project) -> None:
    """As two pipelines that share a source may: the slower one finds nothing to do, or is told so."""
    before, both = standing(ingested, 5), Barrier(2)

    def compacted(_: int) -> str:
        both.wait()
        try:
            return "\n".join(maintain(ingested.lake, ingested.pipeline()))
        except Fenced as fault:
            return str(fault)

    with ThreadPoolExecutor(2) as pool:
        told = list(pool.map(compacted, range(2)))
    assert any(f"{EVENTS}: 6 files before, 1 now" in each for each in told)
    assert all(each.startswith((f"{EVENTS}: ", f"quality/{NAME}: ")) for each in told)
    assert standing(ingested, 5) == before
    assert ingested.lake.file_count(EVENTS) == 1


def test_what_is_large_stays_as_it_is(ingested: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file is larger than what is small here."""
    monkeypatch.setitem(maintain_module.SIZES, "spark.databricks.delta.optimize.minFileSize", "1")
    maintain(ingested.lake, ingested.pipeline())
    assert ingested.lake.file_count(EVENTS) == 6


def test_partitions_are_compacted_apart(project: Project) -> None:
    project.lake.create(live_scores_table(NAME))
    frame = project.lake.read(LIVE)
    for date in ("2026-01-01", "2026-01-01", "2026-01-02"):
        values = [f"DATE'{date}'" if name == "as_of_date" else f"CAST(NULL AS {kind})" for name, kind in frame.dtypes]
        named = (f"{value} AS {name}" for value, name in zip(values, frame.columns, strict=True))
        row = project.spark.range(1).selectExpr(*named)
        row.write.format("delta").mode("append").save(project.lake.path(LIVE))
    alone = {file for file in files(project) if "2026-01-02" in file}
    maintain(project.lake, project.pipeline())
    assert len(files(project)) == 2
    assert alone < files(project)


def files(project: Project) -> set[str]:
    return set(DeltaTable(project.lake.path(LIVE)).file_uris())


def test_what_no_version_of_six_hours_has_is_removed(ingested: Project) -> None:
    """And no sooner: whoever began to read before still finds its files."""
    folder = Path(ingested.settings.table(EVENTS))
    for hours in (5, 7):
        path = folder / f"part-{hours}.parquet"
        path.touch()
        aged(path, timedelta(hours=hours))
    maintain(ingested.lake, ingested.pipeline())
    assert (folder / "part-5.parquet").exists()
    assert not (folder / "part-7.parquet").exists()
    assert len(list(folder.glob("part-*.parquet"))) == 8, "what was compacted is there for older versions"
