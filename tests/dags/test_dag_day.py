"""Which runs are refused before anything runs, and which day a run is for."""

from datetime import UTC, datetime
from typing import cast

import pytest
from airflow.sdk import DAG, Context, timezone
from airflow.sdk.execution_time.context import NEVER_EXPIRE

from dags.command import RunCommand
from dags.day import day_of, days_of, require_days
from dags.errors import RunRefused
from dags.params import CHOICES, DAYS, choices_of
from dags.resolve import ResolveModel

OF_A_DAY = DAG("of_a_day", schedule=None, params=CHOICES)
OF_MANY = DAG("of_many", schedule=None, params={**DAYS, **CHOICES})


def run_of(logical_date: datetime) -> Context:
    return cast("Context", {"logical_date": logical_date, "dag": OF_A_DAY})


def told(**params: object) -> dict[str, object]:
    """Return the parameters of a run that was told these, and nothing of the others."""
    return {"restate": False, "model": "champion", "publish": "newest", "reason": None, **params}


def test_a_run_without_a_date_is_refused_before_a_model_is_resolved() -> None:
    with DAG("dateless", schedule=None):
        task = ResolveModel(task_id="resolve_model", arguments=["model", "resolve", "some_pipeline"])

    with pytest.raises(RunRefused, match=r"no data interval.*logical_date = 00:00 UTC of a day that is over"):
        task.execute(cast("Context", {"dag": OF_A_DAY}))


class Store:
    """What Airflow keeps for a task of one run, by key."""

    def __init__(self) -> None:
        self.values: dict[str, object] = {}

    def get(self, key: str) -> object:
        return self.values.get(key)

    def set(self, key: str, value: object, *, retention: object) -> None:
        assert retention is NEVER_EXPIRE
        self.values[key] = value


def asked(monkeypatch: pytest.MonkeyPatch, store: Store, **params: object) -> list[str]:
    """Return what a run with this store asks `scoreline model resolve` for."""
    monkeypatch.setattr(RunCommand, "execute", lambda *_: '{"name": "m", "version": "1", "digest": "d"}')
    with DAG("recorded", schedule=None):
        task = ResolveModel(task_id="resolve_model", arguments=["model", "resolve", "some_pipeline"])
    day, run_id = datetime(1998, 6, 1, tzinfo=UTC), "scheduled__1998-06-01"
    dag = OF_MANY if "from" in params else OF_A_DAY
    run = {"logical_date": day, "run_id": run_id, "task_state_store": store, "params": told(**params), "dag": dag}
    assert task.execute(cast("Context", run)) == {"name": "m", "version": "1", "digest": "d"}
    assert task.arguments[:3] == ["model", "resolve", "some_pipeline"]
    return task.arguments[3:]


def recorded_as(monkeypatch: pytest.MonkeyPatch, store: Store, model: str = "champion") -> str:
    """Return the name under which a run with this store has its model recorded."""
    *others, option, name = asked(monkeypatch, store, model=model)[:-2]
    assert (others, option) == (["--model", model, "--run-id", "scheduled__1998-06-01"], "--recorded-as")
    return name


def test_a_run_keeps_its_record_and_another_of_the_same_id_gets_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()

    first, cleared = recorded_as(monkeypatch, store), recorded_as(monkeypatch, store)
    anew = recorded_as(monkeypatch, Store())

    assert first == cleared
    assert first.startswith("scheduled__1998-06-01.")
    assert anew != first


def test_a_run_that_is_told_of_another_model_chooses_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backfill that runs a day again clears the same run, and gives it other parameters."""
    store = Store()

    names = [recorded_as(monkeypatch, store, model) for model in ("champion", "7", "recorded", "7")]

    assert names[1] == names[3]
    assert len(set(names)) == 3


def test_the_day_whose_model_is_recorded_is_that_of_the_run_and_a_range_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert asked(monkeypatch, Store(), model="recorded")[-2:] == ["--day", "1998-06-01"]
    span = asked(monkeypatch, Store(), model="recorded", **{"from": "1998-05-01", "to": "1998-05-30"})
    assert "--day" not in span


def test_a_publication_by_force_without_a_reason_is_refused_before_anything_runs() -> None:
    with DAG("forced", schedule=None):
        task = ResolveModel(task_id="resolve_model", arguments=["model", "resolve", "some_pipeline"])
    params = told(publish="force", reason=" ")
    run = {"logical_date": datetime(1998, 6, 1, tzinfo=UTC), "run_id": "r", "params": params, "dag": OF_A_DAY}

    with pytest.raises(RunRefused, match="give it the parameter `reason`"):
        task.execute(cast("Context", run))


def test_what_a_dag_knows_nothing_of_is_refused_and_changes_no_day() -> None:
    """Airflow hands on whatever a run is told."""
    day = datetime(1998, 6, 1, tzinfo=UTC)
    params = told(**{"from": "1998-05-01", "to": "1998-05-30"})
    run = cast("Context", {"logical_date": day, "params": params, "dag": OF_A_DAY})

    assert days_of(run) == (day, day)
    with pytest.raises(RunRefused, match="no parameter from, to: it has restate, model, publish, reason"):
        choices_of(run)


def test_a_range_is_from_its_first_to_its_last_day_and_must_be_over() -> None:
    def run(first: str, last: str) -> Context:
        return cast("Context", {"params": {"from": first, "to": last}, "dag": OF_MANY})

    span = run("1998-05-01", "1998-05-30")
    require_days(span)
    assert days_of(span) == (datetime(1998, 5, 1, tzinfo=UTC), datetime(1998, 5, 30, tzinfo=UTC))
    with pytest.raises(RunRefused, match="`to` 1998-05-01 is before `from` 1998-05-30"):
        require_days(run("1998-05-30", "1998-05-01"))
    with pytest.raises(RunRefused, match="whose `to` is a day that is over"):
        require_days(run("1998-05-30", f"{timezone.utcnow():%Y-%m-%d}"))


def test_a_day_that_is_not_over_is_refused() -> None:
    with pytest.raises(RunRefused, match=r"is not over.*logical_date"):
        require_days(run_of(timezone.utcnow()))


@pytest.mark.parametrize("hour", [0, 10])
def test_a_run_is_for_the_day_of_its_logical_date(hour: int) -> None:
    run = run_of(datetime(1998, 6, 1, hour, 30, tzinfo=UTC))

    require_days(run)

    assert day_of(run) == datetime(1998, 6, 1, tzinfo=UTC)
