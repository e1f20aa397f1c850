"""The sensor, on a real folder: a file is there, is awaited, or is too late."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
from airflow.sdk import DAG, Context
from airflow.sdk.exceptions import AirflowFailException

from dags.errors import LandingMissing
from dags.landing import WaitForLanding

PATTERN = "transactions/date={day}/*.csv*"
FIRST_DAY = date(1997, 1, 1)


def sensor(root: Path | str, deadline_hours: float = 6) -> WaitForLanding:
    with DAG("landing", schedule=None):
        return WaitForLanding(
            task_id="wait", root=str(root), pattern=PATTERN, first_day=FIRST_DAY, deadline_hours=deadline_hours
        )


def run_of(day: datetime) -> Context:
    return cast("Context", {"logical_date": day})


def deliver(root: Path, day: str, name: str) -> None:
    folder = root / "transactions" / f"date={day}"
    folder.mkdir(parents=True)
    (folder / name).write_text("customer_id\n", "utf-8")


@pytest.mark.parametrize("name", ["part-0.csv", "part-0.csv.gz"])
def test_a_file_of_the_day_ends_the_wait(tmp_path: Path, name: str) -> None:
    root = tmp_path / "a landing folder"
    deliver(root, "1998-06-01", name)

    assert sensor(root).poke(run_of(datetime(1998, 6, 1, tzinfo=UTC)))


def test_a_root_may_be_a_uri(tmp_path: Path) -> None:
    deliver(tmp_path, "1998-06-01", "part-0.csv")

    assert sensor(f"file://{tmp_path}").poke(run_of(datetime(1998, 6, 1, tzinfo=UTC)))


def test_a_file_of_another_day_or_kind_does_not_count(tmp_path: Path) -> None:
    deliver(tmp_path, "1998-06-02", "part-0.csv")
    deliver(tmp_path, "1998-06-01", "_SUCCESS")
    folder = tmp_path / "transactions" / "date=1998-06-01"
    for unfinished in (".part-0.csv.part", "_part-0.csv"):
        (folder / unfinished).touch()
    (folder / "a folder.csv").mkdir()

    with pytest.raises(LandingMissing):
        sensor(tmp_path).poke(run_of(datetime(1998, 6, 1, tzinfo=UTC)))


def test_long_after_the_deadline_it_fails_at_once_and_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(AirflowFailException) as failed:
        sensor(tmp_path).poke(run_of(datetime(1998, 6, 1, tzinfo=UTC)))

    assert str(failed.value) == (
        f"No file matches transactions/date=1998-06-01/*.csv* in {tmp_path}, and its deadline 1998-06-02 06:00 UTC is "
        "over. Deliver the file (one with only a header is a day without events) and clear this task."
    )


def test_a_day_before_the_first_file_is_not_awaited(tmp_path: Path) -> None:
    assert sensor(tmp_path).poke(run_of(datetime(1996, 12, 31, tzinfo=UTC)))


def test_the_deadline_counts_from_the_end_of_the_interval(tmp_path: Path) -> None:
    """A pipeline that runs at six waits from six on, not from midnight."""
    just_begun = datetime.now(UTC) - timedelta(days=1, minutes=1)

    assert not sensor(tmp_path, deadline_hours=0.5).poke(run_of(just_begun))


def test_before_the_deadline_it_waits_without_a_worker(tmp_path: Path) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    waiting = sensor(tmp_path, deadline_hours=48)

    assert not waiting.poke(run_of(yesterday))
    assert waiting.reschedule
    assert waiting.timeout > timedelta(hours=48).total_seconds()
