"""Which runs are refused before anything runs, and which day a run is for."""

from datetime import UTC, datetime
from typing import cast

import pytest
from airflow.sdk import DAG, Context, timezone

from dags.command import ResolveModel
from dags.day import day_of, require_day
from dags.errors import RunRefused


def run_of(logical_date: datetime) -> Context:
    return cast("Context", {"logical_date": logical_date})


def test_a_run_without_a_date_is_refused_before_a_model_is_resolved() -> None:
    with DAG("dateless", schedule=None):
        task = ResolveModel(task_id="resolve_model", arguments=["model", "resolve", "some_pipeline"])

    with pytest.raises(RunRefused, match=r"no data interval.*logical_date = 00:00 UTC of a day that is over"):
        task.execute({})


def test_a_day_that_is_not_over_is_refused() -> None:
    with pytest.raises(RunRefused, match=r"is not over.*logical_date"):
        require_day(run_of(timezone.utcnow()))


@pytest.mark.parametrize("hour", [0, 10])
def test_a_run_is_for_the_day_of_its_logical_date(hour: int) -> None:
    run = run_of(datetime(1998, 6, 1, hour, 30, tzinfo=UTC))

    require_day(run)

    assert day_of(run) == datetime(1998, 6, 1, tzinfo=UTC)
