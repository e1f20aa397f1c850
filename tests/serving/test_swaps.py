"""Swap after swap under constant lookups, with fresher values beside and publishers killed: no answer is ever wrong."""

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pytest
from deltalake import DeltaTable, Field, Schema
from deltalake.schema import PrimitiveType

from jobs.publication import retention
from jobs.publication.ledger import Entry, Ledger
from jobs.publication.retention import Retention
from jobs.spec import load_pipeline
from jobs.tables import publications_table
from serving.clock import Clock
from serving.head import Head
from serving.overlay import Fresh, OverlayStore
from serving.store import Store
from tests.conftest import ROOT
from tests.serving.conftest import service_at
from tests.serving.publisher import STEP, keys, numbered
from tests.serving.publishing import JUNE_2
from tests.serving.test_sources import regressions

KEYS = 2000
FRESH = keys(300)  # those that the overlay keeps fresh
STREAM = 1_000_000  # an overlay entry's score is this and its as_of, in microseconds after JUNE_2
CHANCE = random.Random(7)  # noqa: S311  reason: it chooses whom to kill, not a secret
NUMBER = count()
TYPES = {"BIGINT": "long", "STRING": "string", "TIMESTAMP": "timestamp"}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass
class Seen:
    """What one caller saw: the newest as_of of each key, how many answers by source, and every fault."""

    url: str
    newest: dict[str, int] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=lambda: {"batch": 0, "stream": 0})
    faults: list[str] = field(default_factory=list)

    def ask(self, http: httpx.Client, chosen: list[str]) -> None:
        """Look up keys at once and check each answer."""
        response = http.post(self.url, json={"keys": chosen})
        if response.status_code != 200:
            self.faults.append(f"{response.status_code}: {response.text}")
            return
        body = response.json()
        if [answer["key"] for answer in body["answers"]] != chosen:
            self.faults.append("other keys, or another order")
        numbers = {answer["score"] for answer in body["answers"] if answer["source"] == "batch"}
        if len(numbers) > 1 or any(answer["generation"] != body["generation"] for answer in body["answers"]):
            self.faults.append(f"generations mixed: {numbers}")
        for answer in body["answers"]:
            self._check(answer)

    def _check(self, answer: dict[str, Any]) -> None:
        key, source, score = answer["key"], answer["source"], answer["score"]
        after = (datetime.fromisoformat(answer["as_of"]) - EPOCH) // timedelta(microseconds=1) - JUNE_2
        if score != (after / STEP if source == "batch" else STREAM + after):
            self.faults.append(f"{key}: {source} {score} as of {after}")
        if after < self.newest.get(key, after):
            self.faults.append(f"{key}: as_of went back from {self.newest[key]} to {after}")
        self.newest[key] = after
        self.answers[source] += 1


@pytest.fixture
def site(any_place: Callable[[str], str], tmp_path: Path) -> Iterator[Retention]:
    """A pipeline of its own with its Redis, its ledger, and what sweeps them."""
    declared = load_pipeline(ROOT / "dags/pipelines", "purchase_propensity")
    publication = declared.publication.model_copy(update={"keep": 2})
    pipeline = declared.model_copy(update={"name": f"swaps-{next(NUMBER)}", "publication": publication})
    with Store(any_place("publisher")) as store:
        yield Retention(pipeline, store, ledger_at(tmp_path / "ledger", pipeline.name))


@contextmanager
def beside(*tasks: Any) -> Iterator[None]:
    """Run each task again and again in a thread of its own until the block ends."""
    over = Event()

    def again(task: Any) -> None:
        while not over.is_set():
            task()

    threads = [Thread(target=again, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def start(redis_url: str, pipeline: str, token: int, number: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.serving.publisher", redis_url, pipeline, *map(str, (token, number, KEYS))]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)


def ledger_at(folder: Path, pipeline: str) -> Ledger:
    """Return an empty ledger, made without Spark."""
    columns = [Field(column.name, PrimitiveType(TYPES[column.type])) for column in publications_table(pipeline).columns]
    DeltaTable.create(str(folder), Schema(columns))
    return Ledger(str(folder), f"publications/{pipeline}", Clock())


def published(site: Retention, number: int) -> Head:
    """Publish generation `number` by publishers that are killed at random, and return its head."""
    name, ledger = site.pipeline.name, site.ledger
    wanted = Entry.of(numbered(name, 1, number, KEYS)[0])
    while True:
        ledger.admit(site.store.head(name))  # its publisher may have been killed before it could say so
        token = ledger.reserve(wanted, above=0).token
        process = start(site.store.url, name, token, number)
        if CHANCE.random() < 0.4:
            time.sleep(CHANCE.uniform(0, 0.8))
            process.kill()
        if process.wait() == 0:
            live = site.store.head(name)
            assert live is not None
            assert live.token == token
            return live


def fresher(redis_url: str, pipeline: str) -> Any:
    """Return a task that writes newer values of some keys beside the live generation."""
    store = Store(redis_url)
    overlay, ticks = OverlayStore(store), count()

    def write() -> None:
        head = store.head(pipeline)
        assert head is not None
        as_of = head.as_of + 1 + next(ticks) % (STEP - 1)
        values = (float(STREAM + as_of - JUNE_2),)
        overlay.write(head, [Fresh(key, as_of, values) for key in CHANCE.sample(FRESH, 50)])
        time.sleep(0.01)

    return write


@pytest.mark.parametrize(
    ("swaps", "grace"), [(8, 1), pytest.param(100, 10, marks=[pytest.mark.soak, pytest.mark.timeout(2400)])]
)
def test_no_answer_is_torn_mixed_empty_or_older(
    any_place: Callable[[str], str], servers: ExitStack, site: Retention, swaps: int, grace: int
) -> None:
    name, store = site.pipeline.name, site.store
    live = published(site, 1)
    url = servers.enter_context(service_at(any_place("reader")))
    callers = [Seen(f"{url}/v1/scores/{name}") for _ in range(3)]
    with httpx.Client() as http, pytest.MonkeyPatch.context() as patch:
        patch.setattr(retention, "GRACE", timedelta(seconds=grace))
        await_answer(http, callers[0].url)
        tasks = [lambda seen=seen: seen.ask(http, CHANCE.sample(keys(KEYS), 100)) for seen in callers]
        with beside(*tasks, fresher(store.url, name)):
            for number in range(2, swaps + 2):
                before, live = live, published(site, number)
                site.free(site.ledger.admit(live), live.token)
                site.sweep(live, before)
    assert [fault for seen in callers for fault in seen.faults] == []
    assert all(seen.answers["batch"] > 0 and seen.answers["stream"] > 0 for seen in callers)
    assert regressions(url) == 0
    assert_swept(site, swaps)


def assert_swept(site: Retention, swaps: int) -> None:
    """Of what was live, the last few are whole and the first are gone; nothing is left of what never was."""
    history = site.ledger.read()
    there = {
        one.token: site.store.count_blocks(site.pipeline.name, one.token, range(one.buckets))
        for one in history.generations
    }
    lived = [one for one in history.generations if one.turns]
    kept = [one for one in lived if not one.removed]
    assert len(lived) > swaps
    assert swaps > len(kept) >= site.pipeline.publication.keep
    assert {token for token, blocks in there.items() if blocks} == {one.token for one in kept}
    assert {there[one.token] for one in kept} == {kept[0].buckets}


def await_answer(http: httpx.Client, url: str) -> None:
    deadline = time.monotonic() + 10
    while http.post(url, json={"keys": ["key-1"]}).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
