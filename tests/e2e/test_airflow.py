"""The whole path on real data, by a real scheduler: a good day goes live, a bad one leaves what was live alone."""

import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import psutil
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from infra.demo.land import FIRST_DAY, land
from jobs.landing import days_between
from serving.clock import Clock, instant
from serving.store import Store
from serving.stream import StreamRecord
from tests.e2e.whole import ENDED, PIPELINE, Site, await_that, embedded, ended, sourced, submitted, tree_of
from tests.registered import register_small

WATCH = f"{PIPELINE}_stream"
FIRST, SECOND, THIRD, FOURTH, FIFTH, SIXTH = (date(1998, 6, day) for day in range(1, 7))
FIVE = days_between(date(1998, 5, 27), date(1998, 5, 31))
NOBODY = "90001"  # who is no customer before this day
KNOWN = datetime(1998, 4, 1, tzinfo=UTC)  # what the model knows, before all that is scored


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """All services, 17 months of history, six days landed, a champion."""
    var = tmp_path_factory.mktemp("whole") / "a var"
    try:
        embedded("up", var)
        site = Site(var, sourced(var / "env"))
        land(var / "landing", FIRST_DAY, SIXTH)
        site.scoreline("ingest", PIPELINE, "--from", str(FIRST_DAY), "--to", "1998-05-31", "--run-id", "history")
        register_small(site.variables["SCORELINE_MLFLOW_URI"], var / "report", training_as_of=KNOWN)
        await_that(lambda: site.scheduler.knows(PIPELINE))
        site.scheduler.unpause(PIPELINE)
        yield site
        site.scheduler.client.close()
    finally:
        embedded("down", var)


@pytest.fixture(scope="module")
def first(site: Site) -> str:
    """The id of the first day's run, which has succeeded beside a backfill of the five days before, and a stream."""
    return backfilled(site, FIVE, FIRST, buying(site))


def buying(site: Site) -> Iterator[None]:
    """Let a customer buy now and then."""
    for number in count():
        if number % 20 == 0:
            site.happens(NOBODY)
        yield


def backfilled(site: Site, days: list[date], today: date, disturbed: Iterator[None]) -> str:
    """Backfill days by Airflow's own command while today's run goes on; each look at it takes a step of `disturbed`.

    The published as_of never goes back, and all runs succeed. The id of today's is returned.
    """
    told = ("--dag-run-conf", '{"model": "champion"}', "--max-active-runs", "2")
    span = ("--from-date", str(days[0]), "--to-date", str(days[-1]))
    site.airflow("backfill", "create", "--dag-id", PIPELINE, *span, *told)
    daily = site.trigger(today)
    heads: list[datetime] = []

    def over() -> bool:
        with Store(site.variables["SCORELINE_REDIS_URL"]) as store:
            head = store.head(PIPELINE)
        assert head or not heads, "what was live is gone"
        heads.extend([instant(head.as_of)] if head else [])
        next(disturbed, None)
        states = site.of_backfill(days)
        return len(states) == len(days) and all(state in ENDED for state in (*states.values(), site.state(daily)))

    # Each look takes Airflow a tenth of a second of processor time.
    await_that(over, seconds=300 * len(days) + 600, every=3)
    assert site.state(daily) == "success", {
        task: site.log(daily, task)[-1500:] for task, was in site.states(daily).items() if was == "failed"
    }
    assert set(site.of_backfill(days).values()) == {"success"}
    assert heads == sorted(heads)
    assert heads[-1].date() == today + timedelta(days=1)
    return daily


@pytest.mark.timeout(3000)
def test_every_known_customer_has_one_score_and_the_same_one_over_http(site: Site, first: str) -> None:
    table = site.table(SECOND)
    events = DeltaTable(str(site.var / "lake" / "events" / "transactions")).to_pyarrow_table(columns=["customer_id"])
    assert table.keys() | {NOBODY} == set(events["customer_id"].to_pylist())
    assert len(table) == 23_570
    served = site.served(list(table))
    different = [key for key, score in table.items() if np.float32(served[key].score) != score]
    assert not different
    assert {answer.source for answer in served.values()} == {"batch"}


def test_a_backfill_fills_history_while_a_daily_run_and_the_stream_go_on(
    site: Site, first: str, spark: SparkSession, tmp_path: Path
) -> None:
    """Each partition is that of a run of its day alone, by the code called directly."""
    assert site.differing(spark, tmp_path, FIVE) == []
    bought = site.happens(NOBODY)

    def fresh() -> bool:
        answer = site.served([NOBODY])[NOBODY]
        return bool(answer.source == "stream" and answer.as_of >= bought)

    await_that(fresh)


@pytest.mark.timeout(900)
def test_a_bad_day_fails_by_name_and_what_was_live_answers_on(site: Site, first: str) -> None:
    keys = list(site.table(SECOND))[:500]
    before = site.served(keys)
    path = site.var / "landing" / "transactions" / f"date={SECOND}" / "transactions.csv"
    good = path.read_text()
    path.write_text(good.replace("amount", "total", 1))
    run_id = site.trigger(SECOND)
    assert site.ended(run_id) == "failed"
    states = site.states(run_id)
    assert (states["ingest"], states["score"]) == ("failed", "upstream_failed")
    assert "column 'amount' is missing, column 'total' is not declared" in site.log(run_id, "ingest")
    after = site.served(keys)
    assert all((after[key].score, after[key].generation) == (before[key].score, before[key].generation) for key in keys)
    path.write_text(good)


def test_a_stream_that_is_killed_is_started_again_by_its_dag(site: Site, first: str) -> None:
    """`make up` started it; it is known to be dead once it has been silent for a while."""
    with Store(site.variables["SCORELINE_REDIS_URL"]) as store:

        def alive() -> StreamRecord | None:
            record = store.stream(PIPELINE)
            return record if record and record.is_alive(Clock().microseconds()) else None

        before = await_that(alive)
        killed = psutil.Process(int(before.process.split()[0]))
        for process in (killed, *killed.children(recursive=True)):
            process.kill()
        await_that(lambda: alive() is None)
        site.scheduler.unpause(WATCH)
        run = await_that(lambda: next((run for run in site.scheduler.runs(WATCH) if run["state"] in ENDED), None))
        assert run["state"] == "success"
        assert await_that(alive).process != before.process


@pytest.mark.soak
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(
    ("day", "killed"),
    [(THIRD, slice(0, 1)), (FOURTH, slice(2, 3)), (FIFTH, slice(0, 4))],
    ids=["the driver alone", "the task's process alone", "the whole tree"],
)
def test_a_task_killed_in_each_step_is_retried_to_the_same_end(
    site: Site, first: str, day: date, killed: slice
) -> None:
    """The scheduler retries what was killed, and the day ends as if nothing had happened."""
    run_id = site.trigger(day)
    for step in ("ingest", "score", "publish"):
        driver: psutil.Process = await_that(partial(submitted, site, step))
        time.sleep(5)
        for victim in tree_of(driver)[killed]:
            victim.send_signal(signal.SIGKILL)
        await_that(partial(ended, driver))
    assert site.ended(run_id) == "success"
    table = site.table(day + timedelta(days=1))
    served = site.served(list(table))
    assert not [key for key, score in table.items() if np.float32(served[key].score) != score]


def kills_and_clears(site: Site, days: list[date], today: date, kills: int) -> Iterator[None]:
    """Kill a task at work, or one of its processes, now and then; clear what failed, and others, as in the UI."""
    chance = random.Random(1)  # noqa: S311  reason: the same moments each time
    due = time.monotonic()
    while True:
        cleared = {day for day, state in site.of_backfill(days).items() if state == "failed"}
        cleared |= {str(today)} if site.state(f"test__{today}") == "failed" else set()
        if kills > 0 and time.monotonic() > due:
            kills -= 1
            due = time.monotonic() + chance.uniform(60, 180)
            kill_one(site, chance.choice((slice(0, 1), slice(2, 3), slice(0, 4))))
            cleared |= {str(day) for day in days if chance.random() < 1 / 120}
        for day in cleared:
            site.airflow("tasks", "clear", "--yes", PIPELINE, "--start-date", day, "--end-date", day)
        yield


def kill_one(site: Site, which: slice) -> None:
    """Kill processes of a job that is at work, if there is one."""
    running = (submitted(site, step) for step in ("ingest", "score", "publish"))
    driver = next((found for found in running if found), None)
    with suppress(psutil.Error, AssertionError):  # it has ended by itself
        for victim in tree_of(driver)[which] if driver else ():
            victim.send_signal(signal.SIGKILL)


@pytest.mark.soak
@pytest.mark.timeout(12_000)
def test_a_month_is_backfilled_through_kills_and_clearing(
    site: Site, first: str, spark: SparkSession, tmp_path: Path
) -> None:
    days = days_between(date(1998, 4, 27), date(1998, 5, 26))
    backfilled(site, days, SIXTH, kills_and_clears(site, days, SIXTH, 40))
    assert site.differing(spark, tmp_path, days) == []
