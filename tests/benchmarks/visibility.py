"""How soon callers see another generation: from the write of the head to the first answer from it."""

import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from redis import Redis
from redis.exceptions import RedisError

from jobs.publish import publish
from serving.keys import head_key
from tests.benchmarks.population import PIPELINE, Population, key_of, right
from tests.benchmarks.result import Result, Skipped, alone
from tests.benchmarks.stage import Failed, Stage, redis_url
from tests.conftest import ROOT

ROWS = 50_000  # the head is one record, however many scores it names
SETTLE_S = 0.5
ROLLBACKS = 3  # each is a process of its own


def swaps(stage: Stage) -> Iterator[Result]:
    """Milliseconds from a publication's swap to the first answer of its generation."""
    yield alone("swap_visible_ms", "ms", seen(stage, stage.scale.swaps, "publication"))


def rollbacks(stage: Stage) -> Iterator[Result]:
    """Milliseconds from a rollback's write of the head to the first answer of the generation before."""
    commands = subprocess.run([sys.executable, "-m", "jobs", "--help"], cwd=ROOT, capture_output=True, check=True)
    if b"rollback" not in commands.stdout:
        raise Skipped("this version has no `scoreline rollback`: measure it with one that has")
    yield alone("rollback_visible_ms", "ms", seen(stage, min(ROLLBACKS, stage.scale.swaps), "rollback"))


def seen(stage: Stage, times: int, what: str) -> list[float]:
    """Publish and, if that is `what`, roll back, so many times; return the milliseconds until each was seen."""
    population = Population(stage.folder / f"population-{ROWS}", ROWS)
    run, redis = population.run(stage.spark), stage.redis("redis-swap")
    publish(run, redis_url(redis))
    page, values = f"{stage.service(redis)}/v1/scores/{PIPELINE}/{key_of(7)}", []

    def roll_back() -> None:
        stage.finish("rollback", stage.scoreline(redis, population, "rollback", PIPELINE))

    with Commits(redis) as commits, Answers(page, stage.api_key) as answers:
        for turn in range(times):
            found = until_seen(commits, answers, lambda: publish(run, redis_url(redis)))
            found = until_seen(commits, answers, roll_back) if what == "rollback" else found
            values.append(found)
            stage.say(f"{what} {turn + 1}: seen after {found:.2f} ms")
    return values


def until_seen(commits: "Commits", answers: "Answers", change: Callable[[], object]) -> float:
    """Return the milliseconds from the one commit of a change to the first answer that shows it."""
    before = len(commits.seen), len(answers.changes)
    change()
    time.sleep(SETTLE_S)
    committed, changed = commits.seen[before[0] :], answers.changes[before[1] :]
    if (len(committed), len(changed)) != (1, 1):
        raise Failed(f"{len(committed)} writes of the head, {len(changed)} changes seen: 1 of each expected")
    return 1000 * (changed[0] - committed[0])


class Watch(threading.Thread):
    """A thread that watches while it is entered; what ended it too early is raised on leaving."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.ended, self.fault = threading.Event(), ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self.end()
        self.join()
        if self.fault and kind is None:
            raise Failed(self.fault)

    def end(self) -> None:
        self.ended.set()

    def run(self) -> None:
        try:
            self.watch()
        except (OSError, ValueError, http.client.HTTPException, RedisError) as fault:
            self.fault = f"{type(self).__name__}: {fault!r}"

    def watch(self) -> None:
        raise NotImplementedError


class Commits(Watch):
    """Notes when the head was written, by Redis's own clock."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.seen: list[float] = []
        self._redis = Redis(port=port)

    def watch(self) -> None:
        written = f"SET {head_key(PIPELINE)} "
        with self._redis.monitor() as told:  # type: ignore[no-untyped-call]  # reason: redis-py leaves it so
            for one in told.listen():
                if one["command"].startswith(written):
                    self.seen.append(one["time"])
                if self.ended.is_set():
                    return

    def end(self) -> None:
        super().end()
        self._redis.ping()  # so that there is something to listen to once more


class Answers(Watch):
    """Asks for one key on one connection without a pause, and notes when another generation than before answers."""

    def __init__(self, page: str, api_key: str) -> None:
        super().__init__()
        self._headers = {"X-API-Key": api_key}
        self.changes: list[float] = []
        self._where = urlsplit(page)

    def watch(self) -> None:
        known = None
        with closing(http.client.HTTPConnection(self._where.netloc, timeout=10)) as connection:
            while not self.ended.is_set():
                answer = self._ask(connection)
                if known not in (None, answer["generation"]):
                    self.changes.append(time.time())
                known = answer["generation"]

    def _ask(self, connection: http.client.HTTPConnection) -> dict[str, Any]:
        connection.request("GET", self._where.path, headers=self._headers)
        answer = connection.getresponse()
        body: dict[str, Any] = json.loads(answer.read())
        if answer.status != 200 or not right(body["key"], body["score"]):
            raise ValueError(f"{answer.status} {body}")
        return body
