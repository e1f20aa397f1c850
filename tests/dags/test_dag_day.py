"""Which runs are refused before anything runs, and which day a run is for."""

from datetime import UTC, datetime
from typing import cast

import pytest
from airflow.sdk import DAG, Context, timezone
from airflow.sdk.execution_time.context import NEVER_EXPIRE

from dags.command import ResolveModel, RunCommand
from dags.day import day_of, require_day
from dags.errors import RunRefused


def run_of(logical_date: datetime) -> Context:
    return cast("Context", {"logical_date": logical_date})


def test_a_run_without_a_date_is_refused_before_a_model_is_resolved() -> None:
    with DAG("dateless", schedule=None):
        task = ResolveModel(task_id="resolve_model", arguments=["model", "resolve", "some_pipeline"])

    with pytest.raises(RunRefused, match=r"no data interval.*logical_date = 00:00 UTC of a day that is over"):
        task.execute({})


class Store:
    """What Airflow keeps for a task of one run, by key."""

    def __init__(self) -> None:
        self.values: dict[str, object] = {}

    def get(self, key: str) -> object:
        return self.values.get(key)

    def set(self, key: str, value: object, *, retention: object) -> None:
        assert retention is NEVER_EXPIRE
        self.values[key] = value


def recorded_as(monkeypatch: pytest.MonkeyPatch, store: Store) -> str:
    """Return the name under which a run with this store has its model recorded."""
    monkeypatch.setattr(RunCommand, "execute", lambda *_: '{"name": "m", "version": "1", "digest": "d"}')
    with DAG("recorded", schedule=None):
        task = ResolveModel(task_id="resolve_model", arguments=["model", "resolve", "some_pipeline"])
    day, run_id = datetime(1998, 6, 1, tzinfo=UTC), "scheduled__1998-06-01"
    run = cast("Context", {"logical_date": day, "run_id": run_id, "task_state_store": store})
    assert task.execute(run) == {"name": "m", "version": "1", "digest": "d"}
    assert task.arguments[:-1] == ["model", "resolve", "some_pipeline", "--run-id", run_id, "--recorded-as"]
    return task.arguments[-1]


def test_a_run_keeps_its_record_and_another_of_the_same_id_gets_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()

    first, cleared = recorded_as(monkeypatch, store), recorded_as(monkeypatch, store)
    anew = recorded_as(monkeypatch, Store())

    assert first == cleared
    assert first.startswith("scheduled__1998-06-01.")
    assert anew != first


def test_a_day_that_is_not_over_is_refused() -> None:
    with pytest.raises(RunRefused, match=r"is not over.*logical_date"):
        require_day(run_of(timezone.utcnow()))


@pytest.mark.parametrize("hour", [0, 10])
def test_a_run_is_for_the_day_of_its_logical_date(hour: int) -> None:
    run = run_of(datetime(1998, 6, 1, hour, 30, tzinfo=UTC))

    require_day(run)

    assert day_of(run) == datetime(1998, 6, 1, tzinfo=UTC)
