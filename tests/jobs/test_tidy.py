"""Logs are kept short: what a stream has read and a checkpoint has goes, and nothing else."""

from datetime import timedelta
from pathlib import Path

import pytest

from jobs.stream.live import LiveEvents
from jobs.stream.tail import Tail
from jobs.stream.tidy import CHECKSUMS, KEPT, tidy
from jobs.tables import APPENDS, events_table
from tests.jobs.logs import aged, go_by, log_of
from tests.jobs.shop import EVENTS, NOW, rows
from tests.project import Project

CHECKPOINT = 99  # delta-rs writes one each hundred commits


@pytest.fixture
def path(project: Project) -> str:
    """A table of events with live appends, of which a checkpoint has the first ones."""
    project.lake.create(events_table(*project.pipeline().events))
    path = project.settings.table(EVENTS)
    go_by(path)
    return path


def versions(path: str) -> list[int]:
    return [int(file.stem) for file in log_of(path)]


@pytest.mark.parametrize(("read", "first"), [(0, 0), (50, 50), (120, CHECKPOINT)])
def test_commits_that_were_read_and_are_in_a_checkpoint_go(path: str, read: int, first: int) -> None:
    for file in log_of(path):
        aged(file, KEPT + timedelta(seconds=10))
    newest = Tail(path).table.version()
    tidy(path, read, newest)
    assert versions(path) == list(range(first, newest + 1))
    assert LiveEvents(path).newest() == 129
    assert Tail(path).table.to_pyarrow_table().num_rows == 130


def test_what_was_just_written_stays(path: str) -> None:
    """For another pipeline's stream, which may be somewhat behind this one."""
    for file in log_of(path):
        aged(file, KEPT - timedelta(seconds=30))
    before = versions(path)
    tidy(path, 120, before[-1])
    assert versions(path) == before


def test_of_checksums_the_newest_alone_stay(path: str) -> None:
    newest = versions(path)[-1]
    tidy(path, 0, newest)
    kept = sorted(int(file.stem) for file in Path(path, "_delta_log").glob("*.crc") if file.stem.isdigit())
    assert kept == list(range(newest - CHECKSUMS + 1, newest + 1))


def test_who_follows_the_table_goes_on_where_the_log_is_short_now(path: str, project: Project) -> None:
    """Without Spark and with it: both had looked at commits that are gone."""
    reader, live, lake = Tail(path), LiveEvents(path), project.lake
    assert lake.appended(EVENTS) == 129
    for number in range(90):
        live.append(rows(("00001", "1.00")), NOW)
        if number == 30:
            reader.follow()
    for file in log_of(path):
        aged(file, 2 * KEPT)
    newest = live.tail.table.version()
    assert tidy(path, newest, newest) > CHECKPOINT
    assert live.append(rows(("00002", "1.00")), NOW) == 220
    reader.follow()
    assert reader.written(APPENDS) == lake.appended(EVENTS) == 220
    assert lake.read(EVENTS).count() == 221
