"""What a stream goes on with that was started again, and what must not end it."""

import shutil
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

import jobs.stream.pulse as pulse_module
from jobs.publication.publish import publish
from jobs.stream.checkpoint import current, forget
from jobs.stream.live import LiveEvents
from jobs.stream.site import Site
from serving.store import Store
from tests.jobs.conftest import DAY
from tests.jobs.logs import aged, log_of
from tests.jobs.serviced import fresh, has_read, record, running
from tests.jobs.shop import EVENTS, NAME, NOW, SECOND, rows, site_of, stocked
from tests.jobs.streamer import await_true
from tests.project import Project, scored
from tests.registered import register_small


@pytest.fixture
def declared(project: Project, store: Store, jobs_redis_url: str, tmp_path: Path) -> Project:
    return stocked(project, jobs_redis_url, tmp_path)


@pytest.fixture
def site(declared: Project, store: Store) -> Site:
    checkpoint = current(declared.lake, declared.pipeline())
    return replace(site_of(declared, store, NOW + timedelta(minutes=1)), query_id=checkpoint.query_id)


@pytest.fixture
def live(site: Site) -> LiveEvents:
    return LiveEvents(site.settings.table(EVENTS))


def test_a_quiet_hour_and_a_restart_lose_no_checkpoint(site: Site, live: LiveEvents) -> None:
    """Spark reads again what its last micro-batch has read, which here goes over a checkpoint of the events."""
    path = site.settings.table(EVENTS)
    with running(site) as first:
        version = live.append(rows(("00001", "20.00")), NOW)
        await_true(lambda: has_read(site, version))
        (query,) = site.lake.spark.streams.active
        while live.tail.table.version() < 96:
            version = live.append(rows(("00001", "1.00")), NOW + SECOND)
        await_true(lambda: has_read(site, version))
        with first.service.batches.lock:
            live.append(rows(("00002", "1.00")), NOW + 2 * SECOND)
            await_true(lambda: bool(query.status["isTriggerActive"]))  # it waits for the lock
            for number in range(8):  # which the next one reads
                version = live.append(rows((f"{number:05d}", "1.00")), NOW + 2 * SECOND)
        await_true(lambda: has_read(site, version) and 96 < first.service.pulse.needed < 99)
        for file in log_of(path):
            aged(file, timedelta(hours=1))
        first.service.pulse.tidy()
        first.stopping.set()
        first.join()
    with running(site) as second:
        version = live.append(rows(("00029", "1.00")), NOW + 3 * SECOND)
        await_true(lambda: second.fault is not None or has_read(site, version))
        second.stopping.set()
        second.join()
    assert (first.fault, second.fault) == (None, None)


def test_a_lake_that_is_away_for_a_moment_silences_no_stream(
    site: Site, live: LiveEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who says nothing is taken for dead, and another one started beside it."""
    monkeypatch.setattr(pulse_module, "TIDY_BEATS", 1)
    log = Path(site.settings.table(f"scores_live/{NAME}"), "_delta_log")
    with running(site):
        version = live.append(rows(("00001", "20.00")), NOW)
        await_true(lambda: has_read(site, version))
        log.rename(log.with_name("away"))
        time.sleep(2.5)
        log.with_name("away").rename(log)
        told_at = record(site).told_at
        await_true(lambda: record(site).told_at > told_at + 2_000_000)


def test_what_changed_while_it_stood_still_is_followed_before_anybody_has_an_event(
    declared: Project, site: Site, live: LiveEvents, tmp_path: Path, jobs_redis_url: str
) -> None:
    with running(site) as first:
        version = live.append(rows(("00001", "20.00")), NOW)
        await_true(lambda: has_read(site, version) and len(fresh(site)) == 1)
        commits = Path(site.lake.path(current(site.lake, site.pipeline).folder), "commits")
        await_true((commits / "0").exists)
        first.stopping.set()
        first.join()
    other = register_small(site.settings.mlflow_uri, tmp_path / "other", seed=2)
    assert publish(scored(declared, other, DAY), jobs_redis_url) == "live"
    assert not fresh(site)
    with running(site) as second:
        await_true(lambda: second.fault is not None or bool(fresh(site)))
        second.stopping.set()
        second.join()
    assert second.fault is None
    assert fresh(site).keys() == {"00001"}
    head = site.store.head(NAME)
    assert head is not None
    assert head.model.version == other.version


def test_a_stop_while_it_catches_up_is_no_fault(site: Site, live: LiveEvents, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(site) as first:
        version = live.append(rows(("00001", "20.00")), NOW)
        await_true(lambda: has_read(site, version))
        scorer = first.service.batches.scorer
        real = scorer.catch_up

        def stopped(*given: object) -> object:
            first.stopping.set()
            return real(*given)  # type: ignore[arg-type]  # reason: as it was called

        with first.service.batches.lock:
            monkeypatch.setattr(scorer, "catch_up", stopped)
            first.service.batches.seen = None  # as after a publication of another epoch
        first.join()
    assert first.fault is None
    assert record(site).state == "stopped"


def test_who_is_killed_while_it_forgets_begins_anew(site: Site, live: LiveEvents) -> None:
    """The record goes first: without it the rest of the folder is nobody's."""
    with running(site) as first:
        version = live.append(rows(("00001", "20.00")), NOW)
        await_true(lambda: has_read(site, version))
        first.stopping.set()
        first.join()
    before = current(site.lake, site.pipeline)
    kept = Path(site.lake.path(f"streams/{NAME}"))
    shutil.copytree(kept, kept.with_name("kept"))
    forget(site.lake, site.pipeline)
    assert not kept.exists()
    shutil.move(kept.with_name("kept"), kept)
    (kept / "checkpoint.json").unlink()  # as if the kill fell behind it
    assert current(site.lake, site.pipeline) != before
