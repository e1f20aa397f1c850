"""A key out of landing files: each file by its own header, and whole whoever else rewrites it."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.erasure.files import Landing, rewritten_table
from jobs.erasure.rows import Rows, by_column, by_text
from jobs.errors import FileFault
from tests.jobs.conftest import DAY
from tests.project import Project, purchases

OLDER, NEWER = "purchase_date,customer_id", "customer_id,purchase_date,cds,amount,shop,customer_ref"


@pytest.fixture
def landing(project: Project) -> Landing:
    project.lake.create(rewritten_table())
    return Landing(project.lake, project.settings, "customer_id", "42", "0123456789abcdef")


def test_lines_are_told_by_the_columns_that_their_own_file_has(project: Project, landing: Landing) -> None:
    source = dict(project.pipeline().sources)["transactions"]
    older = project.deliver(DAY, [f"{DAY},42", f"{DAY},7", "42,7"], "older.csv", OLDER)
    newer = project.deliver(DAY, [f"42,{DAY},1,1.00,x,y", f"7,{DAY},1,42.50,42,42", "7,42"], "newer.csv", NEWER)
    assert landing.count(source) == 3
    assert landing.erase(source) == 3
    assert older.read_text() == f"{OLDER}\n{DAY},7\n42,7\n"
    assert newer.read_text() == f"{NEWER}\n7,{DAY},1,42.50,42,42\n"
    assert landing.count(source) == 0


def test_a_file_that_does_not_name_the_key_is_refused_before_any_is_rewritten(
    project: Project, landing: Landing
) -> None:
    source = dict(project.pipeline().sources)["transactions"]
    project.deliver(DAY, ["42,1"], "other.csv", "customer,cds")
    with pytest.raises(FileFault, match=r"other\.csv:1: no column is called customer_id, .* put the"):
        landing.count(source)


def test_two_that_rewrite_a_file_at_once_take_both_keys_out(
    project: Project, landing: Landing, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = dict(project.pipeline().sources)["transactions"]
    path = project.deliver(DAY, [f"42,{DAY},1,1.00", f"7,{DAY},1,1.00", f"8,{DAY},1,1.00"])
    other = replace(landing, key="7", mark="fedcba9876543210")
    real, others = Landing._record, iter([other])

    def late(mine: Landing, *given: str) -> None:
        for each in others:
            each.erase(source)
        real(mine, *given)

    monkeypatch.setattr(Landing, "_record", late)
    assert landing.erase(source) == 1
    assert path.read_text().splitlines()[1:] == [f"8,{DAY},1,1.00"]
    assert [each.name for each in path.parent.iterdir() if "erasing" in each.name] == []


def test_what_a_killed_erasure_left_beside_a_file_counts_until_it_is_removed(
    project: Project, landing: Landing
) -> None:
    source = dict(project.pipeline().sources)["transactions"]
    path = project.deliver(DAY, purchases(DAY, 2))
    mine, others = (path.with_name(f".erasing-{mark}-1-transactions.csv") for mark in ("0123456789ab", "fedcba987654"))
    for each in (mine, others):
        each.write_text("of before")
    assert landing.erase(source) == 0
    assert (mine.exists(), others.exists(), landing.count(source)) == (False, True, 1)
    hour_ago = time.time() - 3_600
    os.utime(others, (hour_ago, hour_ago))
    assert landing.erase(source) == 0
    assert (others.exists(), landing.count(source)) == (False, 0)


def test_a_rejected_row_is_a_keys_by_its_field_and_by_words_where_it_has_none(project: Project) -> None:
    rows = [
        ('{"customer_id":"42","cds":"x"}', "of key"),
        ('{"customer_id":42}', "of key"),
        ('{"customer_id":"7","cds":"42"}', "of another"),
        ('{"cds":"42"}', "of key"),
        ("42,1998-06-01", "of key"),
        ("7,1998-06-42,42.50", "of another"),
        ('{"customer_id":"7"} 42', "of key"),
    ]
    frame = project.spark.createDataFrame(
        [(raw, [], who) for raw, who in rows], "raw STRING, reasons ARRAY<STRING>, who STRING"
    )
    frame.write.format("delta").save(project.lake.path("quarantine/t"))
    assert Rows(project.lake, "42").erase(by_text("quarantine/t", "customer_id")) == 5
    assert {row.who for row in project.lake.read("quarantine/t").collect()} == {"of another"}


def test_a_file_that_a_killed_writer_left_and_nobody_can_read_goes_when_it_is_old(project: Project) -> None:
    project.spark.createDataFrame([("7",), ("42",)], "key STRING").write.format("delta").save(
        project.lake.path("scores/t")
    )
    table, rows = by_column("scores/t", "key"), Rows(project.lake, "42")
    old, young = (Path(project.lake.path("scores/t"), f"part-{name}.parquet") for name in ("old", "young"))
    for each in (old, young):
        each.write_bytes(b"PAR1 and no more of 42")
    hour_ago = time.time() - 3_600
    os.utime(old, (hour_ago, hour_ago))
    assert rows.sweep(table) == 1
    assert (old.exists(), young.exists()) == (False, True)
