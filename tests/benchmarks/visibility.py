"""How soon callers see another generation: a publication from its swap, a rollback from its command."""

import http.client
import json
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from redis import Redis
from redis.exceptions import RedisError

from jobs.publication.publish import publish
from serving.errors import ServingError
from serving.keys import head_key
from tests.benchmarks.population import PIPELINE, Population, key_of, right
from tests.benchmarks.result import Result, alone
from tests.benchmarks.stage import Failed, Stage, redis_url

ROWS = 50_000  # the head is one record, however many scores it names
SETTLE_S = 0.5
ROLLBACKS = 3  # each after a publication of the whole population


def swaps(stage: Stage) -> Iterator[Result]:
    """Milliseconds from a publication's swap to the first answer of its generation."""
    population = Population(stage.folder / f"population-{ROWS}", ROWS)
    run, redis, values = population.run(stage.spark), stage.redis("redis-swap"), []
    publish(run, redis_url(redis))
    with Commits(redis) as commits, Answers(_page(stage.service(redis)), stage.api_key) as answers:
        for turn in range(stage.scale.swaps):
            before, _ = len(commits.seen), publish(run, redis_url(redis))
            committed = _one(commits.seen[before:], "writes of the head")
            values.append(1000 * (answers.change_after(committed) - committed))
            stage.say(f"publication {turn + 1}: seen after {values[-1]:.2f} ms")
    yield alone("swap_visible_ms", "ms", values)


def rollbacks(stage: Stage) -> Iterator[Result]:
    """Milliseconds from the start of `scoreline rollback` to the first answer of the generation before."""
    values, page = [], _page(stage.live)
    for turn in range(min(ROLLBACKS, stage.scale.swaps)):
        stage.finish("publish", stage.publishing(stage.live_redis))
        with Answers(page, stage.api_key) as answers:
            start = time.time()
            command = stage.scoreline(stage.live_redis, stage.population.variables, "rollback", PIPELINE)
            stage.finish("rollback", command)
            values.append(1000 * (answers.change_after(start) - start))
        stage.say(f"rollback {turn + 1}: seen after {values[-1]:.0f} ms")
    yield alone("rollback_visible_ms", "ms", values)


def _page(service: str) -> str:
    return f"{service}/v1/scores/{PIPELINE}/{key_of(7)}"


def _one(found: list[float], what: str) -> float:
    """Return the only one."""
    if len(found) != 1:
        raise Failed(f"{len(found)} {what}: 1 expected")
    return found[0]


class Watch(threading.Thread, ABC):
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
        except (OSError, ValueError, http.client.HTTPException, RedisError, ServingError) as fault:
            self.fault = f"{type(self).__name__}: {fault!r}"

    @abstractmethod
    def watch(self) -> None:
        """Look until `ended` is set; what is raised ends the watch too early."""


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

    def change_after(self, instant: float) -> float:
        """Return when the one change after an instant was seen, once it has had the time."""
        time.sleep(SETTLE_S)
        return _one([change for change in self.changes if change > instant], "changes seen")

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
