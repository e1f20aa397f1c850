"""Events that arrive at a constant rate, and how soon a sample of them is in the scores that the service answers.

Commits are due by a schedule, whatever comes back. Seconds go from the end of a commit's call to the end of the first
answer that knows of its events; an answer is asked for every `POLL_S`, so that they are too many by half of that.
"""

import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
from redis import Redis

from jobs.stream.live import LiveEvents
from serving.answers import Score
from serving.client import Client
from serving.clock import Clock
from serving.keys import stream_key
from serving.stream import parse_stream
from tests.benchmarks.machine import Stolen
from tests.benchmarks.population import PIPELINE
from tests.benchmarks.stage import Failed
from tests.benchmarks.visibility import Watch

COMMIT_S = 0.25
POLL_S = 0.05
FOLLOWED = 5  # events of a commit
MOST_WAIT_S = 60


@dataclass(frozen=True)
class Followed:
    """An event that is waited for: whose it is, when it arrived, and when its commit's call ended (monotonic)."""

    key: str
    arrived_at: datetime
    committed: float


@dataclass(frozen=True)
class Seen:
    """An event that is in an answer, so many seconds after its commit."""

    event: Followed
    seconds: float
    answer: Score


@dataclass(frozen=True)
class Minute:
    """About a minute of arrivals: from when to when (monotonic), the share of the cores' time that other guests had.

    `behind` is how many commits the stream said that it was behind, at each commit.
    """

    since: float
    until: float
    stolen: float
    behind: tuple[int, ...]


class Followers(Watch):
    """Asks the service for those who are waited for, as an app would, and keeps what it saw."""

    def __init__(self, client: Client) -> None:
        super().__init__()
        self.client, self.asked, self.began = client, 0, time.monotonic()
        self.coming: deque[Followed] = deque()  # threads may append to it while another pops
        self.waiting: list[Followed] = []
        self.seen: list[Seen] = []

    def watch(self) -> None:
        while not self.ended.wait(POLL_S):
            while self.coming:
                self.waiting.append(self.coming.popleft())
            if self.waiting:
                self._ask()

    def settle(self) -> None:
        """Wait until all are seen; raise `Failed` where one never is."""
        deadline = time.monotonic() + MOST_WAIT_S
        while self.coming or self.waiting:
            if self.fault or time.monotonic() > deadline:
                raise Failed(self.fault or f"{len(self.waiting)} events in no score after {MOST_WAIT_S} s: {self.lost}")
            time.sleep(POLL_S)

    @property
    def asked_a_second(self) -> float:
        """How many keys were asked for in a second, up to now."""
        return self.asked / (time.monotonic() - self.began)

    @property
    def lost(self) -> str:
        """Some of those that are waited for."""
        return ", ".join(f"{event.key} of {event.arrived_at}" for event in self.waiting[:3])

    def _ask(self) -> None:
        keys = list({event.key for event in self.waiting})
        found = {one.key: one for one in self.client.scores(PIPELINE, keys) if isinstance(one, Score)}
        now, still = time.monotonic(), []
        self.asked += len(keys)
        for event in self.waiting:
            answer = found.get(event.key)
            if answer is not None and answer.source == "stream" and answer.as_of >= event.arrived_at:
                self.seen.append(Seen(event, now - event.committed, answer))
            else:
                still.append(event)
        self.waiting = still


class Arrivals:
    """Commits what `draw` gives to the events table, and has some of it followed."""

    def __init__(self, live: LiveEvents, clock: Clock, draw: Callable[[int], pa.Table], redis: Redis) -> None:
        self.live, self.clock, self.draw, self.redis = live, clock, draw, redis
        self.commits: list[float] = []  # the seconds of each
        self.version = -1  # of the last
        self._chance = random.Random(2)  # noqa: S311  reason: a sample, no secret

    def during(self, rate: int, seconds: float, followers: Followers) -> Minute:
        """Commit events at `rate` a second for so many seconds."""
        stolen, began, behind = Stolen(), time.monotonic(), []
        for tick in range(round(seconds / COMMIT_S)):
            time.sleep(max(0.0, began + tick * COMMIT_S - time.monotonic()))
            self._commit(round(rate * COMMIT_S), followers)
            behind.append(self.behind)
            if followers.fault:
                raise Failed(followers.fault)
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        return Minute(began, time.monotonic(), stolen.share, tuple(behind))

    @property
    def behind(self) -> int:
        """How many commits the stream has not read, as it said when it last did."""
        return self.version - read_up_to(self.redis)

    def _commit(self, many: int, followers: Followers) -> None:
        events, arrived_at, began = self.draw(many), self.clock.now(), time.monotonic()
        self.version = self.live.append(events, arrived_at)
        committed = time.monotonic()
        self.commits.append(committed - began)
        for key in self._chance.sample(events["customer_id"].to_pylist(), min(FOLLOWED, many)):
            followers.coming.append(Followed(key, arrived_at, committed))


def read_up_to(redis: Redis) -> int:
    """Return the number of the last append that the stream has read, as it said last; -1 before it has said one."""
    raw = redis.get(stream_key(PIPELINE))
    return parse_stream(raw).version if isinstance(raw, bytes) else -1
