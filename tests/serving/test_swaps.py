"""Swap after swap under constant lookups, with fresher values beside and publishers killed: no answer is ever wrong."""

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from threading import Event, Thread
from typing import Any

import httpx
import pytest

from serving.overlay import Fresh, OverlayStore
from serving.store import Store
from tests.conftest import ROOT
from tests.serving.publisher import STEP, keys, numbered
from tests.serving.publishing import JUNE_2

KEYS = 2000
FRESH = keys(300)  # those that the overlay keeps fresh
STREAM = 1_000_000  # an overlay entry's score is this and its as_of, in microseconds after JUNE_2
CHANCE = random.Random(7)  # noqa: S311  reason: it chooses whom to kill, not a secret
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


def published(redis_url: str, pipeline: str, tokens: "count[int]", number: int) -> list[int]:
    """Publish generation `number` by publishers that are killed at random; return their tokens, the live one last."""
    tried = []
    while True:
        tried.append(next(tokens))
        process = start(redis_url, pipeline, tried[-1], number)
        if CHANCE.random() < 0.4:
            time.sleep(CHANCE.uniform(0, 0.8))
            process.kill()
        if process.wait() == 0:
            return tried


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


@pytest.mark.parametrize("swaps", [8, pytest.param(100, marks=[pytest.mark.soak, pytest.mark.timeout(1200)])])
def test_no_answer_is_torn_mixed_empty_or_older(redis_url: str, service_url: str, swaps: int) -> None:
    pipeline, tokens, kept = f"swaps-{swaps}", count(1), []
    live = published(redis_url, pipeline, tokens, 1)
    callers = [Seen(f"{service_url}/v1/scores/{pipeline}") for _ in range(3)]
    with httpx.Client() as http, Store(redis_url) as store:
        await_answer(http, callers[0].url)
        tasks = [lambda seen=seen: seen.ask(http, CHANCE.sample(keys(KEYS), 100)) for seen in callers]
        with beside(*tasks, fresher(redis_url, pipeline)):
            for number in range(2, swaps + 2):
                kept.append(live)
                live = published(redis_url, pipeline, tokens, number)
                sweep(store, pipeline, kept[:-2], number - 1)
                kept = kept[-2:]
    assert [fault for seen in callers for fault in seen.faults] == []
    assert all(seen.answers["batch"] > 0 and seen.answers["stream"] > 0 for seen in callers)


def await_answer(http: httpx.Client, url: str) -> None:
    deadline = time.monotonic() + 10
    while http.post(url, json={"keys": ["key-1"]}).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def sweep(store: Store, pipeline: str, old: list[list[int]], before: int) -> None:
    """Remove what two later generations have replaced, and the overlay entries that the one before had overtaken."""
    for token in (token for tried in old for token in tried):
        store.remove_generation(pipeline, token, range(numbered(pipeline, token, 1, KEYS)[0].layout.buckets))
    head = store.head(pipeline)
    assert head is not None
    OverlayStore(store).drop_overtaken(replace(head, as_of=JUNE_2 + STEP * before))
