"""The lake: an append that counts once, a fence that one alone can pass, and rows as they stood."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.errors import DataFault, Fenced
from jobs.lake import Lake
from jobs.tables import APPENDS, VERSION, Column, Table, live_quarantine_table
from tests.project import Project

TABLE = Table("t", (Column("day", "DATE", "a day's"), Column("n", "BIGINT", "number")), ("day",))
DELIVERED = replace(TABLE, columns=(*TABLE.columns, Column(VERSION, "BIGINT", "which append")))


def rows(lake: Lake, day: date, *numbers: int) -> DataFrame:
    return lake.spark.createDataFrame([(day, number) for number in numbers], "day DATE, n BIGINT")


DAY, OTHER = date(1998, 6, 1), date(1998, 6, 2)


@pytest.fixture
def lake(project: Project) -> Lake:
    project.lake.create(TABLE)
    return project.lake


def numbers(lake: Lake) -> list[int]:
    return sorted(row.n for row in lake.read("t").collect())


def test_of_two_with_one_fence_the_second_is_told(lake: Lake) -> None:
    first, zombie = lake.fence("t", "a/1998-06-01"), lake.fence("t", "a/1998-06-01")
    lake.replace(rows(lake, DAY, 1), "t", "day = '1998-06-01'", first)
    with pytest.raises(Fenced, match="a/1998-06-01 committed first"):
        lake.replace(rows(lake, DAY, 2), "t", "day = '1998-06-01'", zombie)
    assert numbers(lake) == [1]


def test_who_holds_a_fence_from_before_a_key_was_erased_writes_nothing(lake: Lake) -> None:
    fence = lake.fence("t", "a/1")
    write_deltalake(lake.path("erasures"), pa.table({"key_hash": ["1"]}))  # without Spark, as another process does
    with pytest.raises(Fenced, match="a key was erased while this attempt was at work"):
        lake.append(rows(lake, DAY, 1), "t", fence)
    lake.append(rows(lake, DAY, 2), "t", lake.fence("t", "a/1"))
    assert numbers(lake) == [2]


def test_a_key_that_is_erased_while_files_are_written_is_noticed_before_the_commit(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fence, versions = lake.fence("t", "a/1"), iter([-1, 0])
    monkeypatch.setattr(Lake, "erasures", lambda _: next(versions))
    with pytest.raises(Fenced, match="a key was erased"):
        lake.append(rows(lake, DAY, 1), "t", fence)
    assert numbers(lake) == []


def test_a_commit_is_found_behind_many_others(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who commits between the writing and the look at the log does not make it a lost write."""
    fence, real = lake.fence("t", "a/1"), lake.version

    def after_others(_: Lake, name: str) -> int:
        for number in range(3):
            rows(lake, OTHER, number).write.format("delta").mode("append").save(lake.path("t"))
        return real(name)

    monkeypatch.setattr(Lake, "version", after_others)
    lake.append(rows(lake, DAY, 9), "t", fence)
    assert numbers(lake) == [0, 1, 2, 9]


def test_a_commit_is_found_where_the_log_is_kept_for_less_than_a_job_takes(lake: Lake) -> None:
    fence = lake.fence("t", "a/1")
    rows(lake, OTHER, 1).write.format("delta").mode("append").save(lake.path("t"))
    DeltaTable(lake.path("t")).create_checkpoint()
    lake.files.delete(f"t/_delta_log/{fence.since + 1:020}.json")
    lake.append(rows(lake, DAY, 9), "t", fence)
    assert numbers(lake) == [1, 9]


def test_who_takes_longer_than_the_log_is_kept_is_fenced(lake: Lake, tmp_path: Path) -> None:
    """The version that it read last is below a checkpoint by then, and what it "commits" there nobody ever reads."""
    begun, through = tmp_path / "begun", tmp_path / "through"

    def slow(number):  # type: ignore[no-untyped-def]  # reason: Spark warns of hints that it cannot read
        begun.touch()
        while not through.exists():
            time.sleep(0.05)
        return number

    fence = lake.fence("t", "a/1")
    late = rows(lake, DAY, 1).withColumn("n", F.udf(slow, "bigint")("n"))
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(lake.append, late, "t", fence)
        while not begun.exists():
            time.sleep(0.05)
        for number in range(2, 6):
            rows(lake, OTHER, number).write.format("delta").mode("append").save(lake.path("t"))
        DeltaTable(lake.path("t")).create_checkpoint()
        for version in range(fence.since + 1, lake.version("t")):
            lake.files.delete(f"t/_delta_log/{version:020}.json")
        through.touch()
        with pytest.raises(Fenced):
            done.result()
    assert 1 not in numbers(lake)


def test_a_table_that_is_there_gets_the_properties_that_are_declared_now(lake: Lake) -> None:
    """Once, and with no commit where nothing has changed."""
    before = live_quarantine_table("p")
    lake.create(replace(before, properties={"delta.logRetentionDuration": "interval 30 days"}))
    lake.create(before)
    version = lake.version(before.name)
    lake.create(before)
    assert DeltaTable(lake.path(before.name)).metadata().configuration.items() >= before.properties.items()
    assert lake.version(before.name) == version == 1


def test_writers_at_the_same_instant_are_fenced_not_broken(lake: Lake) -> None:
    """Both begin before the first commits, where Delta raises its own conflict instead of skipping the second."""
    fence = lake.fence("t", "a/1")

    def write(number: int) -> str:
        try:
            lake.append(rows(lake, DAY, number), "t", fence)
        except Fenced:
            return "fenced"
        return "in"

    with ThreadPoolExecutor(2) as pool:
        ended = sorted(pool.map(write, (1, 2)))
    assert ended == ["fenced", "in"]
    assert len(numbers(lake)) == 1


def test_a_new_column_is_added_and_a_new_type_refused(lake: Lake) -> None:
    lake.append(rows(lake, DAY, 1), "t", lake.fence("t", "job/1"))
    more = Column("more", "DOUBLE", "what came later")
    lake.create(replace(TABLE, columns=(*TABLE.columns, more)))
    assert lake.read("t").schema["more"].metadata["comment"] == "what came later"
    assert [(row.n, row.more) for row in lake.read("t").collect()] == [(1, None)]
    with pytest.raises(DataFault, match=r"t: column more is DOUBLE in the table and STRING now"):
        lake.create(replace(TABLE, columns=(*TABLE.columns, replace(more, type="STRING"))))


def test_an_older_date_is_no_older_version(lake: Lake) -> None:
    """With one application id for all dates a backfill would be dropped without a word."""
    for day in (OTHER, DAY):
        lake.replace(rows(lake, day, 1), "t", f"day = '{day}'", lake.fence("t", f"a/{day}"))
    assert numbers(lake) == [1, 1]


def test_replacing_a_partition_leaves_the_others(lake: Lake) -> None:
    lake.append(rows(lake, OTHER, 9), "t", lake.fence("t", "other"))
    for attempt in (1, 2):
        lake.replace(rows(lake, DAY, attempt), "t", "day = '1998-06-01'", lake.fence("t", "a/1"))
    assert numbers(lake) == [2, 9]
    assert lake.fence("t", "a/1").version == 2
    assert lake.fence("t", "nobody").version == 0


def test_rows_as_they_stood_survive_compaction_and_vacuum(project: Project) -> None:
    lake = project.lake
    lake.create(DELIVERED)
    assert lake.appended("t") == -1
    lake.deliver(rows(lake, DAY, 1, 2), DELIVERED, lake.fence("t", APPENDS))
    then = lake.appended("t")
    lake.deliver(rows(lake, DAY, 3), DELIVERED, lake.fence("t", APPENDS))
    lake.spark.sql(f"OPTIMIZE delta.`{lake.path('t')}`")
    lake.spark.conf.set("spark.databricks.delta.retentionDurationCheck.enabled", "false")
    lake.spark.sql(f"VACUUM delta.`{lake.path('t')}` RETAIN 0 HOURS")
    assert sorted(row.n for row in lake.read_at("t", then).collect()) == [1, 2]
    assert sorted(row.n for row in lake.read_at("t", lake.appended("t")).collect()) == [1, 2, 3]


def test_other_readers_read_the_tables(lake: Lake) -> None:
    lake.append(rows(lake, DAY, 1, 2), "t", lake.fence("t", "job/1"))
    table = DeltaTable(lake.path("t"))
    assert table.protocol().min_reader_version == 1
    assert sorted(table.to_pandas().n) == [1, 2]
