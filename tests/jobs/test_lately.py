"""The part of the status that is about the last run, the newest scores, the stream, and what failed last."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from expectations.errors import ExpectationsFailed
from jobs.ingest import ingest
from jobs.publication.lately import Lately
from jobs.spec import Settings, load_pipeline
from serving.clock import microseconds
from serving.keys import stream_key, stream_wish_key
from serving.store import Store
from serving.stream import StreamRecord
from tests.conftest import ROOT
from tests.project import Project, purchases

NAME = "purchase_propensity"
NOW = datetime(1998, 6, 6, 12, tzinfo=UTC)
DAY = date(1998, 6, 5)


@pytest.fixture
def lately(tmp_path: Path, store: Store) -> Lately:
    return Lately(Settings(lake=f"{tmp_path}/a lake"), load_pipeline(ROOT / "dags" / "pipelines", NAME), store)


def said(lately: Lately) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in lately.lines(NOW))


def record(lately: Lately, step: str, run_id: str, hour: int, *measures: tuple[str, str, str, bool, str]) -> None:
    rows = [(datetime(1998, 6, 6, tzinfo=UTC), step, *each, run_id, NOW.replace(hour=hour)) for each in measures]
    names = ("as_of", "step", "suite", "metric", "column", "success", "observed", "run_id", "measured_at")
    table = pa.table({name: [row[place] for row in rows] for place, name in enumerate(names)})
    instants = {name: table[name].cast(pa.timestamp("us", "UTC")) for name in ("as_of", "measured_at")}
    for name, column in instants.items():
        table = table.set_column(names.index(name), name, column)
    write_deltalake(lately.settings.table(f"quality/{NAME}"), table, mode="append")


def test_it_says_what_ran_last_and_what_failed_last(lately: Lately) -> None:
    held, rows = ("scores", "mean(min_value=0)", "score", True, "0.1"), ("", "rows", "", True, "40")
    broken = ("transactions", "between(min_value=0)", "amount", False, "3 of 40 rows")
    record(lately, "ingest", "early", 1, broken)
    record(lately, "ingest", "run-7", 2, rows)
    record(lately, "score", "run-7", 3, held)
    assert said(lately)["run"] == "ingest, score of day 1998-06-05 by run run-7, 1998-06-06 03:00 UTC"
    assert said(lately)["failed"] == (
        "transactions: between(min_value=0) of amount, observed 3 of 40 rows; "
        "ingest of day 1998-06-05 by run early, 1998-06-06 01:00 UTC"
    )


def test_it_says_which_scores_are_the_newest(lately: Lately) -> None:
    days = [DAY, DAY - timedelta(days=9)]
    rows = pa.table({"as_of_date": days, "arm": ["champion"] * 2, "score": [0.1, 0.2]})
    write_deltalake(lately.settings.table(f"scores/{NAME}"), rows, partition_by=["as_of_date", "arm"])
    assert said(lately)["scored"] == "the newest as of 1998-06-05, 2 dates in all"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "runs, all read"),
        ({"behind": 2, "behind_since": microseconds(NOW) - 5_000_000}, "runs, 2 behind, the oldest for 5 s"),
        ({"waits_for": "Redis"}, "runs, all read; it waits: Redis"),
        (
            {"told_at": microseconds(NOW - timedelta(hours=1))},
            "DEAD since 1998-06-06 11:00 UTC; `scoreline stream watch",
        ),
        ({"state": "stopped"}, "stopped since 1998-06-06 12:00 UTC; `scoreline stream start purchase_propensity` runs"),
        ({"state": "stopped", "fault": "messages lost"}, "DEAD since 1998-06-06 12:00 UTC: messages lost; `scoreline"),
    ],
)
def test_it_says_how_the_stream_is(lately: Lately, changes: dict[str, object], words: str) -> None:
    assert said(lately)["stream"].startswith("never ran")
    at = microseconds(NOW)
    told = StreamRecord(**{"state": "running", "query_id": "q", "started_at": at, "told_at": at, **changes})  # type: ignore[arg-type]  # reason: values by the names of fields
    lately.store.ask("SET", stream_key(NAME), told.to_json())
    assert said(lately)["stream"].startswith(words)


def test_a_stream_that_somebody_stopped_is_not_called_dead(lately: Lately) -> None:
    told = StreamRecord(state="stopped", query_id="q", started_at=0, told_at=microseconds(NOW))
    lately.store.ask("SET", stream_key(NAME), told.to_json())
    lately.store.ask("SET", stream_wish_key(NAME), 1)
    assert said(lately)["stream"].startswith("stopped by somebody")


def test_a_suite_that_stopped_a_day_is_on_record(project: Project, store: Store) -> None:
    """As what failed last, with the number of rows that broke it: the message of the task's log alone will not do."""
    project.deliver(DAY, [row.replace(".50", ".50-") for row in purchases(DAY, 40)])
    with pytest.raises(ExpectationsFailed):
        ingest(project.run(DAY, "run-9"), [DAY])
    failed = said(Lately(project.settings, project.pipeline(), store))["failed"]
    assert "transactions: expect_column_values_to_" in failed
    assert "observed 40 of 40 rows; ingest of day 1998-06-05 by run run-9" in failed
