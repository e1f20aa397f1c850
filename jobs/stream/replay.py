"""Delivered files played as live events: the same rows and ids as the files give, at a chosen speed."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from rich.console import Console

from jobs.erasure.files import as_delivered
from jobs.erasure.tombstones import Tombstones, without_erased
from jobs.errors import DataFault, ScorelineError
from jobs.filesystem import FileSystem
from jobs.landing import days_between, delivered
from jobs.run import Run
from jobs.staging import DELIVERY, read_rows, staged
from jobs.stream.live import LiveEvents
from jobs.stream.view import Screen, Watch
from serving.client import Client
from serving.clock import Clock
from serving.store import Store

COMMIT_SECONDS = 0.25
POLL_SECONDS = 0.05
PATIENCE_SECONDS = 180.0
LAST_SECONDS = 30.0  # for what was committed last
DAY = timedelta(days=1)
OURS = ("parse_fault", "raw", "arrived_at", *DELIVERY)


@dataclass(frozen=True)
class Replay:
    """What is played: the files of the days `first` to `last`, how long a day takes, and what is known of them."""

    first: date
    last: date
    day_seconds: float
    again: bool


@dataclass(frozen=True)
class Played:
    """Some events that became visible together: a row each, and when they arrived."""

    events: pa.Table
    due_s: float


def replay(run: Run, redis_url: str, asked: Replay) -> int:
    """Play events once the pipeline's stream has read all that there are, show what changes, and return how many.

    Raises:
        FileFault, DataFault: as `events_of_days` says.
        ScorelineError: there is no stream, or no lookup service to watch.
    """
    name, table = run.pipeline.name, f"events/{run.pipeline.events[0]}"
    events = events_of_days(run, asked.first, asked.last)
    if asked.again:
        events = as_new(events, run.lake.read(table), f"{run.clock.now():%Y%m%dT%H%M%S}")
    live = LiveEvents(run.settings.table(table))
    with Store(redis_url) as store:
        await_stream(store, name, run.clock, live.newest())
    parts = schedule(events, asked.first, asked.day_seconds)
    with Client(run.settings.url) as client, Screen(Console(), Watch(client, name)) as screen:
        return play(parts, live, run, screen)


def events_of_days(run: Run, first: date, last: date) -> pa.Table:
    """Return the events of the files of `first` to `last`, as `ingest` would append them, in order of time.

    Raises:
        FileFault: a file is missing, or of another shape.
        DataFault: an event is of a time that has not come yet.
    """
    name, source = run.pipeline.events
    files = delivered(FileSystem(run.lake.spark, run.settings.landing), source, days_between(first, last))
    text = read_rows(run.lake.spark, source, as_delivered(files, run.settings))
    rows = without_erased(staged(text, source, run.pipeline.entity_key), run.settings, name)
    good = rows.where("parse_fault IS NULL").orderBy("event_time", "event_id")
    found = good.select("day", *(column for column in good.columns if column not in OURS)).toArrow()
    newest, now = pc.max(found["event_time"]).as_py(), run.clock.now()
    if newest is not None and newest > now:
        raise DataFault(
            f"{name}: the files have events of {newest:%Y-%m-%d %H:%M}, and it is {now:%Y-%m-%d %H:%M} now: "
            "play days that are over, or set SCORELINE_CLOCK"
        )
    return found


def as_new(events: pa.Table, known: DataFrame, mark: str) -> pa.Table:
    """Return the events, of which those that `known` (with event_id) has get ids of their own, and so count again."""
    ids = events.select(["event_id"])
    there = set(
        known.join(known.sparkSession.createDataFrame(ids), "event_id", "left_semi").toArrow()["event_id"].to_pylist()
    )
    renamed = [f"{one}/{mark}" if one in there else one for one in ids["event_id"].to_pylist()]
    return events.set_column(events.column_names.index("event_id"), "event_id", pa.array(renamed, pa.string()))


def await_stream(store: Store, pipeline: str, clock: Clock, newest: int) -> None:
    """Wait until the pipeline's stream runs and has read all events up to the append `newest`.

    Raises:
        ScorelineError: there is none, or it does not get there.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (
        (record := store.stream(pipeline)) is None
        or record.version < newest
        or not record.is_alive(clock.microseconds())
    ):
        if time.monotonic() > deadline:
            raise ScorelineError(
                f"{pipeline}: no stream has read the events in {PATIENCE_SECONDS:.0f} s, and no score would change: "
                f"run `scoreline stream start {pipeline}`, and see `scoreline stream status {pipeline}`"
            )
        time.sleep(POLL_SECONDS)


def schedule(events: pa.Table, first: date, seconds_a_day: float) -> Iterator[Played]:
    """Give the events (with `day`) in the parts that are committed together, each day's spread evenly over the day."""
    due = []
    for day in pc.unique(events["day"]).to_pylist():
        many = pc.sum(pc.equal(events["day"], day)).as_py()
        due += [((day - first).days + place / many) * seconds_a_day for place in range(many)]
    ticks = [int(at / COMMIT_SECONDS) for at in due]
    own = events.drop_columns(["day"])
    begin = 0
    for end in range(1, len(ticks) + 1):
        if end == len(ticks) or ticks[end] != ticks[begin]:
            yield Played(own.slice(begin, end - begin), ticks[begin] * COMMIT_SECONDS)
            begin = end


def play(parts: Iterator[Played], live: LiveEvents, run: Run, screen: Screen) -> int:
    """Append each part when it is due, follow what it changes, and return how many events that were.

    They were read long before: keys that were erased since are left out.
    """
    started, count, tombstones = time.monotonic(), 0, Tombstones(run.settings)
    for part in parts:
        while (wait := started + part.due_s - time.monotonic()) > 0:
            screen.refresh()
            time.sleep(min(wait, POLL_SECONDS))
        before = screen.watch.answers(_keys(part.events, run))
        events, arrived_at = _without_erased(part.events, run, tombstones), run.clock.now()
        if not len(events):
            continue
        live.append(events, arrived_at)
        screen.watch.follow(before, _keys(events, run), arrived_at)
        count += len(events)
    deadline = time.monotonic() + LAST_SECONDS
    while screen.watch.waiting and time.monotonic() < deadline:
        screen.refresh()
        time.sleep(POLL_SECONDS)
    return count


def _keys(events: pa.Table, run: Run) -> list[str]:
    keys: list[str] = pc.unique(events[run.pipeline.entity_key]).to_pylist()
    return keys


def _without_erased(events: pa.Table, run: Run, tombstones: Tombstones) -> pa.Table:
    for erased in tombstones.of(run.pipeline.events[0], events.column_names):
        events = erased.without(events, erased.entity_key)
    return events
