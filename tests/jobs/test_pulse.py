"""What a stream says of itself each second: how far it has read, what waits, and that it lives while it waits."""

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from threading import Event, Thread

import pytest
from pyspark.sql import SparkSession

from jobs.errors import RegistryUnavailable
from jobs.stream.batch import Batches
from jobs.stream.checkpoint import current
from jobs.stream.pulse import Pulse
from jobs.stream.query import needed_version
from jobs.stream.service import Service
from serving.keys import stream_wish_key
from serving.store import Store
from serving.stream import StreamRecord
from tests.jobs.logs import aged, go_by, log_of
from tests.jobs.shop import EVENTS, NAME, NOW, SECOND, Shop, opened, rows
from tests.project import Project


@pytest.fixture(scope="module")
def shop(spark: SparkSession, jobs_redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("a pulse")
    with Store(jobs_redis_url) as store:
        store.ask("FLUSHDB")
        with opened(Project(folder, spark), store, jobs_redis_url, folder) as shop:
            yield shop


def await_that(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def seen(shop: Shop, pulse: Pulse) -> StreamRecord:
    pulse.look(shop.query)
    return pulse.record("running")


def test_what_waits_is_told_with_since_when(shop: Shop) -> None:
    pulse = Pulse(shop.site, shop.batches)
    await_that(lambda: seen(shop, pulse).behind == 0)
    with shop.batches.lock:  # as a micro-batch has it that takes long
        first = shop.live.append(rows(("00001", "1.00")), NOW)
        before = seen(shop, pulse)
        shop.live.append(rows(("00002", "1.00")), NOW)
        await_that(lambda: bool(shop.query.status["isTriggerActive"]))
        after, later = seen(shop, pulse), seen(shop, pulse)
    assert (before.version, before.behind, before.behind_since) == (first - 1, 1, before.behind_since)
    assert before.behind_since is not None
    assert (after.version, after.behind, after.behind_since) == (first - 1, 2, before.behind_since)
    assert later.progressed_at == after.progressed_at
    shop.settle()
    done = seen(shop, pulse)
    assert (done.version, done.behind, done.behind_since) == (first + 1, 0, None)
    assert done.progressed_at > later.progressed_at


def test_it_keeps_the_log_short_up_to_what_it_has_read(shop: Shop) -> None:
    """And both go on: the stream from its checkpoint, and the log."""
    path = shop.project.settings.table(EVENTS)
    go_by(path)
    shop.settle()
    for file in log_of(path):
        aged(file, timedelta(hours=1))
    shop.happens(rows(("00002", "1.00")), NOW + SECOND)
    pulse, newest = Pulse(shop.site, shop.batches), int(log_of(path)[-1].stem)
    await_that(lambda: needed_version(shop.query) == newest)
    pulse.look(shop.query)
    pulse.tidy()
    assert [int(file.stem) for file in log_of(path)] == list(range(newest // 100 * 100 - 1, newest + 1))
    last = shop.live.append(rows(("00003", "1.00")), NOW + 2 * SECOND)
    shop.settle()
    assert shop.batches.version == last


def test_an_append_without_rows_is_read_too(shop: Shop) -> None:
    """A file with a header only has a number of its own, and no micro-batch."""
    pulse = Pulse(shop.site, shop.batches)
    version = shop.live.append(rows(), NOW)
    assert seen(shop, pulse).behind > 0
    await_that(lambda: seen(shop, pulse).version == version)


def test_a_stream_that_was_started_again_has_read_what_its_checkpoint_has(shop: Shop) -> None:
    """By what it last said; and where Redis has lost that, by its finding nothing more to read."""
    shop.happens(rows(("00001", "1.00")), NOW)
    version = shop.batches.version
    other = Pulse(shop.site, Batches(shop.site, Event()))
    assert seen(shop, other).behind == version + 1
    await_that(lambda: seen(shop, other).behind == 0)
    other.tell("stopped", shop.site.store)
    third = Pulse(shop.site, Batches(shop.site, Event()))
    with third.beating(shop.query):
        await_that(lambda: third.backlog.read == version)
    assert third.record("running").behind == 0


def test_it_lives_and_says_what_it_waits_for(shop: Shop) -> None:
    """While a micro-batch waits, and what looks after the live generation waits for the micro-batch."""
    shop.query.stop()
    service = Service(shop.site, Event())
    thread = Thread(target=service.run, args=(current(shop.site.lake, shop.site.pipeline),))
    thread.start()
    store, back = shop.site.store, Event()

    def work() -> None:
        if not back.is_set():
            raise RegistryUnavailable("MLflow is away")

    def told() -> StreamRecord:
        record = store.stream(NAME)
        assert record is not None
        return record

    try:
        await_that(lambda: store.stream(NAME) is not None and told().behind == 0)
        with service.batches.lock:
            waiting = Thread(target=service.batches._patiently, args=(work,))
            waiting.start()
            await_that(lambda: told().waits_for == "MLflow is away")
            heard = told().told_at
            await_that(lambda: told().told_at > heard + 3_000_000)
            assert told().state == "running"
            back.set()
            waiting.join()
        await_that(lambda: told().waits_for == "")
    finally:
        store.ask("SET", stream_wish_key(NAME), 1)
        thread.join()
    assert (told().state, told().process.split()[0].isdigit()) == ("stopped", True)
