"""The long-running job from its start to its stop: what it says of itself, why it ends, and what it goes on with."""

import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from signal import SIGTERM, raise_signal
from threading import Event

import pytest

from jobs.errors import ArtefactRefused, ScorelineError, StreamEnded
from jobs.stream.checkpoint import current
from jobs.stream.live import LiveEvents
from jobs.stream.service import told_to_stop, wait_for_tables
from jobs.stream.site import Site
from jobs.stream.tidy import tidy
from jobs.tables import events_table
from serving.clock import microseconds
from serving.keys import stream_key, stream_wish_key
from serving.store import Store
from tests.jobs.logs import go_by
from tests.jobs.serviced import fresh, has_read, record, running
from tests.jobs.shop import EVENTS, NAME, NOW, SECOND, rows, site_of, stocked
from tests.jobs.streamer import await_true
from tests.project import Project


@pytest.fixture
def site(project: Project, store: Store, jobs_redis_url: str, tmp_path: Path) -> Site:
    declared = stocked(project, jobs_redis_url, tmp_path)
    checkpoint = current(declared.lake, declared.pipeline())
    return replace(site_of(declared, store, NOW + timedelta(minutes=1)), query_id=checkpoint.query_id)


def test_it_stops_when_that_is_wished_and_goes_on_where_it_was(site: Site) -> None:
    """By a wish in Redis, and by a signal; the second knows from its state what the first had read."""
    live = LiveEvents(site.settings.table(EVENTS))
    with running(site) as first:
        version = live.append(rows(("00001", "20.00"), ("00002", "5.00")), NOW)
        await_true(lambda: len(fresh(site)) == 2 and record(site).version == version)
        assert record(site).state == "running"
        site.store.ask("SET", stream_wish_key(NAME), 1)
        first.join()
    before = record(site)
    assert (first.fault, before.state, before.keys > 0) == (None, "stopped", True)
    site.store.unlink([stream_wish_key(NAME)])
    with running(site) as second:
        version = live.append(rows(("00001", "3.00")), NOW + SECOND)
        await_true(lambda: fresh(site)["00001"].as_of == microseconds(NOW + SECOND) and record(site).version == version)
        second.stopping.set()
        second.join()
    after = record(site)
    assert (second.fault, after.state, after.query_id) == (None, "stopped", before.query_id)
    assert after.batch == before.batch + 1
    assert fresh(site).keys() == {"00001", "00002"}


def test_one_that_stood_still_for_longer_than_the_log_begins_anew(site: Site) -> None:
    """It leaves nothing out in silence: it says so and ends, and the next start reads the whole table."""
    path = site.settings.table(EVENTS)
    with running(site) as first:
        version = LiveEvents(path).append(rows(("00001", "20.00")), NOW)
        await_true(lambda: has_read(site, version))
        first.stopping.set()
        first.join()
    go_by(path)
    go_by(path)
    newest = LiveEvents(path).tail.table.version()
    assert tidy(path, newest, newest) > 130, "as another pipeline's stream does, which has read them"
    with running(site) as second:
        second.join()
    assert isinstance(second.fault, StreamEnded), second.fault
    assert f"`scoreline stream start {NAME}` begins anew" in str(second.fault)
    assert fresh(site).keys() == {"00001"}
    with running(site) as third:
        await_true(lambda: third.fault is not None or len(fresh(site)) == 30)
    assert third.fault is None


def test_a_commit_that_is_seen_before_the_one_below_it_ends_nothing(site: Site, tmp_path: Path) -> None:
    """As where a folder is listed while others commit: the query ends, and goes on in the same process."""
    path, copy = Path(site.settings.table(EVENTS)), tmp_path / "a copy"
    with running(site) as service:
        version = LiveEvents(str(path)).append(rows(("00001", "20.00")), NOW)
        await_true(lambda: has_read(site, version))
        shutil.copytree(path, copy)
        elsewhere = LiveEvents(str(copy))
        for number in (1, 2):
            version = elsewhere.append(rows((f"0000{number}", "5.00")), NOW + number * SECOND)
        shutil.copytree(copy, path, ignore=shutil.ignore_patterns("_delta_log"), dirs_exist_ok=True)
        newest = elsewhere.tail.table.version()
        for commit in (newest, newest - 1):
            name = f"_delta_log/{commit:020}.json"
            shutil.copy(copy / name, path / "_delta_log" / "on its way")
            (path / "_delta_log" / "on its way").rename(path / name)
            await_true(lambda: service.fault is not None or service.service.gaps == 1)
        await_true(lambda: service.fault is not None or fresh(site).keys() == {"00001", "00002"})
        assert service.fault is None
        assert fresh(site)["00001"].as_of == microseconds(NOW + SECOND)


def test_a_commit_that_is_gone_ends_it(site: Site) -> None:
    path = Path(site.settings.table(EVENTS))
    with running(site) as service:
        version = LiveEvents(str(path)).append(rows(("00001", "20.00")), NOW)
        await_true(lambda: has_read(site, version))
        newest = LiveEvents(str(path)).tail.table.version()
        name = path / f"_delta_log/{newest + 2:020}.json"
        name.write_bytes((path / f"_delta_log/{newest:020}.json").read_bytes())
        service.join()
    assert isinstance(service.fault, StreamEnded), service.fault
    assert "NOT_CONTIGUOUS" in str(service.fault)


def test_it_says_why_it_ended_by_itself(site: Site) -> None:
    """Here features.sql was broken since; whoever watches sees a record that it is over."""
    path = site.settings.sql(NAME, "features")
    path.write_text(path.read_text().replace("e.amount,", "e.price AS amount,"))
    with running(site) as service:
        LiveEvents(site.settings.table(EVENTS)).append(rows(("00001", "20.00")), NOW)
        service.join()
    assert isinstance(service.fault, ScorelineError), service.fault
    assert "price" in str(service.fault)
    assert record(site).state == "stopped"
    assert fresh(site) == {}


def test_a_registry_that_is_away_is_waited_for(site: Site, tmp_path: Path) -> None:
    """Nothing is live from before that process: it needs the model as soon as it looks at what is live."""
    live, folder = LiveEvents(site.settings.table(EVENTS)), tmp_path / "registry"
    folder.write_text("nothing can be below a file")
    uri = f"sqlite:///{folder}/mlflow.db"
    with running(replace(site, settings=site.settings.model_copy(update={"mlflow_uri": uri}))) as service:
        live.append(rows(("00001", "20.00")), NOW)
        await_true(lambda: service.fault is not None or site.store.ask("EXISTS", stream_key(NAME)) == 1)
        folder.unlink()
        folder.mkdir()
        shutil.copy(site.settings.mlflow_uri.removeprefix("sqlite:///"), folder)
        await_true(lambda: service.fault is not None or fresh(site).keys() == {"00001"})
        assert service.fault is None


def test_a_stop_is_seen_while_a_micro_batch_waits(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "registry"
    folder.write_text("nothing can be below a file")
    away = site.settings.model_copy(update={"mlflow_uri": f"sqlite:///{folder}/mlflow.db"})
    with running(replace(site, settings=away)) as service:
        LiveEvents(site.settings.table(EVENTS)).append(rows(("00001", "20.00")), NOW)
        await_true(lambda: service.fault is not None or service.service.batches.waits_for != "")
        site.store.ask("SET", stream_wish_key(NAME), 1)
        service.join()
    assert (service.fault, record(site).state) == (None, "stopped")


def test_a_fault_that_stays_is_what_it_ends_by(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a micro-batch as of all else: not as Spark words it, which a supervisor would take for one that passes."""

    def refused(*_: object) -> None:
        raise ArtefactRefused("the digest is another one")

    monkeypatch.setattr("jobs.stream.batch.Batches.process", refused)
    with running(site) as service:
        service.join()
    assert isinstance(service.fault, ArtefactRefused)


def test_a_signal_is_a_wish_to_stop_and_afterwards_none_of_ours() -> None:
    with told_to_stop() as stopping:
        assert not stopping.is_set()
        raise_signal(SIGTERM)
        assert stopping.is_set()


def test_without_a_table_of_events_it_waits_for_one(project: Project) -> None:
    path, stopping = project.settings.table(EVENTS), Event()
    stopping.set()
    assert not wait_for_tables([path], stopping)
    project.lake.create(events_table(*project.pipeline().events))
    assert wait_for_tables([path], stopping)


def test_a_query_that_ended_is_told_with_its_fault(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing goes on beside a query that is over."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("nobody knows")

    monkeypatch.setattr("jobs.stream.batch.Batches.process", broken)
    with running(site) as service:
        service.join()
    assert isinstance(service.fault, StreamEnded)
    assert "ZeroDivisionError: nobody knows" in str(service.fault)
    assert record(site).state == "stopped"
