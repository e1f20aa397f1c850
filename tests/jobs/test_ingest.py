"""Ingest: what is delivered well gets in once; a bad delivery is named and changes nothing that was there."""

import gzip
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

import jobs.ingest as ingest_module
from expectations.errors import ExpectationsFailed
from jobs.errors import Fenced, FileFault
from jobs.fencing import Fence
from jobs.ingest import ingest
from jobs.lake import Lake
from tests.project import HEADER, Project, purchases

DAY = date(1998, 6, 1)
NEXT = DAY + timedelta(days=1)
EVENTS, QUARANTINE = "events/transactions", "quarantine/transactions"


def ingest_day(project: Project, day: date = DAY) -> None:
    ingest(project.run(day), [day])


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> Project:
    """A day of 50 purchases, ingested; what bad deliveries must not change."""
    project = Project(tmp_path_factory.mktemp("settled") / "a project", spark)
    project.deliver(DAY, purchases(DAY, 50))
    ingest_day(project)
    return project


@contextmanager
def nothing_changes(project: Project) -> Iterator[None]:
    """Take back what a test delivers, and see that no table has a new version."""
    landing, good = Path(project.settings.landing), project.folder / "good"
    shutil.copytree(landing, good)
    before = [project.lake.version(table) for table in (EVENTS, QUARANTINE)]
    try:
        yield
    finally:
        shutil.rmtree(landing)
        good.rename(landing)
    assert [project.lake.version(table) for table in (EVENTS, QUARANTINE)] == before


def contents(project: Project) -> list[list[str]]:
    return [sorted(map(str, project.lake.read(table).collect())) for table in (EVENTS, QUARANTINE)]


def test_rows_are_typed_timed_and_identified(project: Project) -> None:
    project.deliver(DAY, ["00007,1998-06-01,2,20.76", "00007,1998-06-01,2,20.76", "00008,1998-05-30,1,0.00"])
    ingest_day(project)
    rows = project.lake.read(EVENTS).orderBy("customer_id", "event_id").collect()
    assert [row.customer_id for row in rows] == ["00007", "00007", "00008"]
    assert len({row.event_id for row in rows}) == 3, "equal content is not a duplicate"
    assert {row.arrived_at.astimezone(UTC) for row in rows} == {datetime(1998, 6, 2, tzinfo=UTC)}
    assert rows[2].event_time.astimezone(UTC) == datetime(1998, 5, 30, tzinfo=UTC)
    assert str(rows[0].amount) == "20.76"
    assert {row.source_file for row in rows} == {"transactions/date=1998-06-01/transactions.csv"}


def test_ingesting_again_changes_nothing(project: Project) -> None:
    project.deliver(DAY, [*purchases(DAY, 60), "x,1998-06-01,1,1.00"])
    ingest_day(project)
    before = contents(project)
    ingest_day(project)
    assert contents(project) == before


def test_a_range_gives_the_same_rows_as_its_days(project: Project, tmp_path: Path) -> None:
    other = Project(tmp_path / "other", project.spark)
    for each in (project, other):
        each.deliver(DAY, purchases(DAY, 5))
        each.deliver(NEXT, purchases(NEXT, 5))
    ingest(project.run(NEXT), [DAY, NEXT])
    ingest_day(other, DAY)
    ingest_day(other, NEXT)
    # Of the same rows only the number of the append is another.
    ranged, daily = ([re.sub(r"table_version=\d+", "", row) for row in contents(each)[0]] for each in (project, other))
    assert ranged == daily
    assert contents(project)[1] == contents(other)[1] == []


def test_a_header_alone_is_a_quiet_day(project: Project) -> None:
    for day in (DAY, NEXT):
        project.deliver(day, [])
        ingest_day(project, day)
    assert project.lake.read(EVENTS).isEmpty()


def test_a_few_bad_rows_go_to_quarantine_with_their_reasons(project: Project) -> None:
    bad = ["00099,1998-06-01,1,-3.00", "00098,1998-06-31,1,3.00"]
    project.deliver(DAY, [*purchases(DAY, 98), *bad])
    ingest_day(project)
    assert project.lake.read(EVENTS).count() == 98
    rejected = {row.raw: " | ".join(row.reasons) for row in project.lake.read(QUARANTINE).collect()}
    assert len(rejected) == 2
    reasons = {re.search(r"0009\d", raw).group(): reason for raw, reason in rejected.items()}  # type: ignore[union-attr]  # reason: each has one
    assert "amount=-3.00 breaks expect_column_values_to_be_between" in reasons["00099"]
    assert "purchase_date: '1998-06-31' is not date" in reasons["00098"]
    counted = project.lake.read("quality/purchase_propensity").where("metric LIKE '%rows rejected'").collect()
    assert [row.observed for row in counted] == ["2"]


def deliver_again(project: Project) -> None:
    project.deliver(NEXT, purchases(DAY, 50))


def change_after_ingest(project: Project) -> None:
    project.deliver(DAY, purchases(DAY, 51))


def truncated(project: Project) -> None:
    packed = gzip.compress(("\n".join([HEADER, *purchases(NEXT, 500)]) + "\n").encode())
    project.deliver_bytes(NEXT, packed[: len(packed) // 2], "transactions.csv.gz")


FILES: dict[str, tuple[Callable[[Project], object], date, str]] = {
    "missing column": (
        lambda p: p.deliver(NEXT, ["1,1998-06-02,1"], header="customer_id,purchase_date,cds"),
        NEXT,
        r"transactions/date=1998-06-02/transactions.csv:1: column 'amount' is missing",
    ),
    "renamed column": (
        lambda p: p.deliver(NEXT, purchases(NEXT, 5), header="customer_id,purchase_date,cds,total"),
        NEXT,
        r"column 'amount' is missing, column 'total' is not declared",
    ),
    "columns in another order": (
        lambda p: p.deliver(NEXT, purchases(NEXT, 5), header="customer_id,purchase_date,amount,cds"),
        NEXT,
        r"the columns are in another order",
    ),
    "no bytes": (lambda p: p.deliver_bytes(NEXT, b""), NEXT, r"transactions.csv: the file has no bytes"),
    "no bytes inside": (
        lambda p: p.deliver_bytes(NEXT, gzip.compress(b""), "t.csv.gz"),
        NEXT,
        r"t.csv.gz: the file is empty",
    ),
    "truncated": (truncated, NEXT, r"transactions.csv.gz: the file can't be read to its end"),
    "no file": (lambda p: None, NEXT, r"no file for 1998-06-02: nothing matches .*date=1998-06-02"),
    "delivered twice": (
        deliver_again,
        NEXT,
        r"date=1998-06-02/.*: the same file was delivered as transactions/date=1998-06-01",
    ),
    "twice in a day": (
        lambda p: [p.deliver(NEXT, purchases(NEXT, 5), name) for name in ("a.csv", "b.csv")],
        NEXT,
        r"b.csv: the same file was delivered as .*a.csv",
    ),
    "changed after ingest": (change_after_ingest, DAY, r"was changed after it was ingested"),
}


@pytest.mark.parametrize("fault", FILES)
def test_a_bad_file_is_named_and_changes_nothing(settled: Project, fault: str) -> None:
    deliver, day, message = FILES[fault]
    with nothing_changes(settled):
        deliver(settled)
        with pytest.raises(FileFault, match=message):
            ingest_day(settled, day)


ROWS = {
    "text for an amount": (
        "00001,1998-06-02,1,abc",
        "expect_column_values_to_be_null.* on parse_fault.*amount: 'abc' is not",
    ),
    "impossible date": ("00001,1998-02-30,1,1.00", "parse_fault.*purchase_date: '1998-02-30' is not date"),
    "negative amount": (
        "00001,1998-06-02,1,-1.00",
        "expect_column_values_to_be_between.* on amount: 20 of 50 rows, such as -1",
    ),
    "too many values": ("00001,1998-06-02,1,1.00,9", "parse_fault.*the row does not have 4 values"),
    "too few values": ("00001,1998-06-02,1", "parse_fault.*the row does not have 4 values"),
    "a day that is none": ("00001,19980602,1,1.00", "parse_fault.*purchase_date: '19980602' is not date"),
    "more digits than held": ("00001,1998-06-02,1,1.005", r"parse_fault.*amount: '1.005' is not decimal"),
    "from the future": ("00001,1998-06-30,1,1.00", "parse_fault.*purchase_date: it is after the delivery"),
    "no key": (",1998-06-02,1,1.00", "expect_column_values_to_not_be_null.* on customer_id: 20 of 50 rows"),
}


@pytest.mark.parametrize("fault", ROWS)
def test_too_many_bad_rows_fail_the_day_and_change_nothing(settled: Project, fault: str) -> None:
    row, message = ROWS[fault]
    with nothing_changes(settled):
        settled.deliver(NEXT, [*purchases(NEXT, 30), *[row] * 20])
        with pytest.raises(ExpectationsFailed, match=message) as failed:
            ingest_day(settled, NEXT)
    assert failed.value.report is not None
    assert failed.value.report.is_file()


def test_a_kill_between_quarantine_and_events_loses_nothing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.deliver(DAY, [*purchases(DAY, 60), "x,1998-06-01,1,1.00"])
    real = Lake.append

    def dies(lake: Lake, frame: DataFrame, name: str, fence: Fence) -> None:
        if name == EVENTS:
            raise KeyboardInterrupt
        real(lake, frame, name, fence)

    with monkeypatch.context() as patched:
        patched.setattr(Lake, "append", dies)
        with pytest.raises(KeyboardInterrupt):
            ingest_day(project)
    ingest_day(project)
    assert [project.lake.read(table).count() for table in (EVENTS, QUARANTINE)] == [60, 1]


def test_a_file_gets_in_once_though_two_attempts_began_before_either_ended(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A range and one of its days, say: the second attempt ends while the first is about to append."""
    for day in (DAY, NEXT):
        project.deliver(day, [*purchases(day, 60), "x,1998-06-01,1,1.00"])
    real = ingest_module._append

    def overtaken(*given: Any) -> None:
        monkeypatch.setattr(ingest_module, "_append", real)
        ingest_day(project, DAY)
        real(*given)

    monkeypatch.setattr(ingest_module, "_append", overtaken)
    with pytest.raises(Fenced, match="others ingested meanwhile"):
        ingest(project.run(NEXT), [DAY, NEXT])
    ingest(project.run(NEXT), [DAY, NEXT])
    assert [project.lake.read(table).count() for table in (EVENTS, QUARANTINE)] == [120, 2]


def test_days_that_are_ingested_at_the_same_time_all_get_in(project: Project) -> None:
    days = [DAY + timedelta(days=number) for number in range(3)]
    for number, day in enumerate(days):
        project.deliver(day, purchases(day, 5, first=1 + 10 * number))
    ingest_day(project, days[0])
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda day: ingest_day(project, day), days[1:]))
    assert project.lake.read(EVENTS).count() == 15


def test_the_rest_of_an_interval_may_come_later_as_another_file(project: Project) -> None:
    project.deliver(DAY, purchases(DAY, 5))
    ingest_day(project)
    project.deliver(DAY, purchases(DAY, 5, first=6), "rest.csv")
    ingest_day(project)
    assert project.lake.read(EVENTS).count() == 10


def test_no_staged_file_stays(project: Project) -> None:
    project.deliver(DAY, purchases(DAY, 5))
    ingest_day(project)
    staging = Path(project.settings.lake) / "staging"
    assert not [path for path in staging.rglob("*") if path.is_file()]
