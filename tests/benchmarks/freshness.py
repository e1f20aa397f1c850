"""How soon what happens shows: from an event's commit to the events table until the service answers with its score.

All of it is the program's: the stream as `make up` starts it, Redis, the lookup service, a generation of all customers.
"""

import random
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from statistics import median

import numpy as np
from redis import Redis

from jobs.publication.publish import publish
from jobs.run import as_of_day
from jobs.stream.live import LiveEvents
from serving.client import Client
from serving.clock import Clock
from tests.benchmarks.arrivals import COMMIT_S, FOLLOWED, Arrivals, Followers, Minute, Seen, read_up_to
from tests.benchmarks.machine import MOST_STOLEN
from tests.benchmarks.population import PIPELINE
from tests.benchmarks.result import Result
from tests.benchmarks.shop import EVENTS, LAST_DAY, Buyers, Shop, by_batch, variables
from tests.benchmarks.stage import LONG, Failed, Stage, redis_url, stop
from tests.project import Project

RATES = (100, 500)  # events a second
MINUTE_S = 60
FIRST_BATCH_S = 1200  # in it all events are read
CHECKED = 200  # answers that are computed again at a time: about what is touched in half a second at 500/s
CHECKS = 3
PEER = "a scan of all events for the keys"
MORNING = as_of_day(LAST_DAY) + timedelta(hours=6)
# A backlog is flat as long as the second half is not slower than the first by more than this.
MOST_GROWTH, SLACK_S, SLACK_COMMITS = 1.5, 0.25, 1 / COMMIT_S
JUDGED_S = 2 * MINUTE_S  # what is shorter says nothing of a backlog
LEAST_RATE = 0.95  # of the one that was asked for


@dataclass(frozen=True)
class Phase:
    """Arrivals at one rate, after a warm-up: its minutes, and a sample of its events as they were seen.

    `young` is the seconds of a sample of the warm-up's events.
    """

    rate: int
    minutes: tuple[Minute, ...]
    sample: tuple[Seen, ...]
    young: tuple[float, ...]

    @property
    def kept(self) -> tuple[Minute, ...]:
        """The minutes that count: those without other guests, unless these are too few."""
        calm = tuple(minute for minute in self.minutes if minute.stolen <= MOST_STOLEN)
        return calm if 2 * len(calm) > len(self.minutes) else self.minutes

    @property
    def seconds(self) -> list[float]:
        """Seconds from commit to score of the events that count, in the order of their commits."""
        spans = [(minute.since, minute.until) for minute in self.kept]
        counted = [one for one in self.sample if any(a <= one.event.committed < b for a, b in spans)]
        return [one.seconds for one in sorted(counted, key=lambda one: one.event.committed)]

    def quantile(self, share: float) -> float:
        """Return the seconds that a share of the events kept."""
        return float(np.quantile(self.seconds, share))

    @property
    def fault(self) -> str:
        """What was not as it should be; empty where nothing was."""
        commits = sum(len(minute.behind) for minute in self.minutes)
        lasted = sum(minute.until - minute.since for minute in self.minutes)
        rate = self.rate * COMMIT_S * commits / lasted
        if rate < LEAST_RATE * self.rate:
            return f"only {rate:.0f} events a second were committed, and not {self.rate}"
        if lasted < JUDGED_S:
            return ""
        (before, after), (behind, later) = _halves(self.seconds), _halves(self._behind)
        if after > MOST_GROWTH * before + SLACK_S or later > MOST_GROWTH * behind + SLACK_COMMITS:
            return f"the backlog grows at {self.rate} events a second"
        return ""

    @property
    def note(self) -> str:
        """What a reader must know of it."""
        (before, after), (behind, later) = _halves(self.seconds), _halves(self._behind)
        disturbed = sum(minute.stolen > MOST_STOLEN for minute in self.minutes)
        guests = f", {disturbed} of {len(self.minutes)} minutes with other guests" if disturbed else ""
        left = f", {len(self.minutes) - len(self.kept)} left out" if disturbed else ""
        young = f"{np.quantile(self.young, 0.5):.2f} and {np.quantile(self.young, 0.95):.2f} s while warming up"
        return (
            f"at {self.rate}/s p50 {self.quantile(0.5):.2f} s, p95 {self.quantile(0.95):.2f} s, greatest "
            f"{max(self.seconds):.2f} s of {len(self.seconds):,} ({young}); medians of first and second half "
            f"{before:.2f} and {after:.2f} s, {behind:.0f} and {later:.0f} commits behind{guests}{left}"
        )

    @property
    def _behind(self) -> list[int]:
        return [commits for minute in self.kept for commits in minute.behind]


@dataclass(frozen=True)
class Measured:
    """What was measured over a history of so many events; `setting` is what a reader must know of the run.

    `scan` is the seconds that fresh scores of `CHECKED` keys take who keeps no histories, but scans the table for them.
    """

    events: int
    phases: tuple[Phase, ...]
    scan: float
    setting: str

    @property
    def note(self) -> str:
        """What a reader must know of it."""
        told = (f"{self.events:,} events of history: {self.setting}", *(phase.note for phase in self.phases))
        return "; ".join((*told, f"a scan for {CHECKED} keys takes {self.scan:.2f} s"))

    @property
    def fault(self) -> str:
        """What was not as it should be; empty where nothing was."""
        found = [f"{phase.fault} with {self.events:,} events of history" for phase in self.phases if phase.fault]
        return ", ".join(found)


def measured(stage: Stage) -> Iterator[Result]:
    """Seconds from commit to score at the worse rate, and by how much a hundred times the history changes them."""
    few, many = (_over(Shop(stage.folder / f"shop-{copies}", copies), stage) for copies in (1, stage.scale.copies))
    for name, share in (("freshness_p50_s", 0.5), ("freshness_p95_s", 0.95)):
        yield _judged(Result(name, max(phase.quantile(share) for phase in few.phases), "s", note=few.note), few)
    yield _judged(_growth(few, many), few, many)


def _growth(few: Measured, many: Measured) -> Result:
    pairs = [
        (before.quantile(0.95), after.quantile(0.95)) for before, after in zip(few.phases, many.phases, strict=True)
    ]
    times, peer = [after / before for before, after in pairs], many.scan / few.scan
    told = ", ".join(f"{each:.2f} at {rate}/s" for rate, each in zip(RATES, times, strict=True))
    value = max(times)
    return Result("freshness_p95_growth", value, "times", PEER, peer, peer / value, f"{told}; {many.note}")


def _judged(result: Result, *runs: Measured) -> Result:
    """Return the result, as one that failed where a run of it was not as it should be."""
    faults = ", ".join(run.fault for run in runs if run.fault)
    return replace(result, note=f"failed: {faults}; {result.note}") if faults else result


def _over(shop: Shop, stage: Stage) -> Measured:
    stage.say(f"making a shop with {shop.events:,} events")
    project, redis = shop.opened(stage.spark), stage.redis(f"redis-shop-{shop.copies}")
    publish(project.run(LAST_DAY, "benchmark"), redis_url(redis))
    now = datetime.now(UTC)
    clock, told = Clock(MORNING - now), f"{MORNING.isoformat()}@{now.isoformat()}"
    buyers, live = Buyers(shop.copies), LiveEvents(project.settings.table(EVENTS))
    with Redis(port=redis) as client, _stream(stage, project, redis, told) as process:
        arrivals = Arrivals(live, clock, lambda many: buyers.buy(many, MORNING.date()), client)
        first = _await_stream(stage, client, process)
        stage.say(f"the stream has read them {first:.0f} s after its start")
        url = stage.service(redis, SCORELINE_CLOCK=told)
        with Client(url, api_key=stage.api_key) as app, Followers(app) as followers:
            phases = tuple(_phase(stage, rate, arrivals, followers, process) for rate in RATES)
            setting = f"read in {first:.0f} s from the stream's start; {_load(stage, arrivals, followers)}"
    scan = _scan(project, [one for phase in phases for one in phase.sample])
    shutil.rmtree(project.folder)
    return Measured(shop.events, phases, scan, setting)


def _load(stage: Stage, arrivals: Arrivals, followers: Followers) -> str:
    """Return what a reader must know of what was asked of the machine beside the stream."""
    return (
        f"{stage.scale.warming} s of warming up at each rate; a commit every {COMMIT_S} s takes "
        f"{1000 * median(arrivals.commits):.0f} ms, {FOLLOWED} of its events are followed, by "
        f"{followers.asked_a_second:,.0f} lookups a second, and {CHECKS * CHECKED} answers are computed again"
    )


@contextmanager
def _stream(stage: Stage, project: Project, redis: int, clock: str) -> Iterator[subprocess.Popen[bytes]]:
    where = {**variables(project), "SCORELINE_CLOCK": clock, "SPARK_CONF_DIR": str(LONG)}  # as `make up` does
    process = stage.scoreline(redis, where, "stream", "start", PIPELINE)
    try:
        yield process
    finally:
        stop(process)


def _await_stream(stage: Stage, redis: Redis, process: subprocess.Popen[bytes]) -> float:
    """Wait until the stream has read the history, and return the seconds from here on."""
    began = time.monotonic()
    while read_up_to(redis) < 0:
        _alive(stage, process)
        if time.monotonic() > began + FIRST_BATCH_S:
            raise Failed(f"the stream has not read the history in {FIRST_BATCH_S} s: see {stage.log('stream')}")
        time.sleep(0.5)
    return time.monotonic() - began


def _alive(stage: Stage, process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        raise Failed(f"the stream has ended with exit code {process.returncode}: see {stage.log('stream')}")


def _phase(
    stage: Stage, rate: int, arrivals: Arrivals, followers: Followers, process: subprocess.Popen[bytes]
) -> Phase:
    started = time.monotonic()
    arrivals.during(rate, stage.scale.warming, followers)
    minutes, left, begun = [], stage.scale.arrivals, time.monotonic()
    while left > 0:
        minutes.append(arrivals.during(rate, min(left, MINUTE_S), followers))
        left -= MINUTE_S
        _alive(stage, process)
    followers.settle()
    seen = [one for one in followers.seen if one.event.committed >= started]
    young = tuple(one.seconds for one in seen if one.event.committed < begun)
    phase = Phase(rate, tuple(minutes), tuple(one for one in seen if one.event.committed >= begun), young)
    stage.say(phase.note)
    return phase


def _scan(project: Project, sample: Sequence[Seen]) -> float:
    """Return the seconds (median) in which some answers are computed again from the whole table.

    Raises:
        Failed: an answer is not what the batch's code gives for its key and as_of.
    """
    chance, took = random.Random(3), []  # noqa: S311  reason: a sample, no secret
    for _ in range(CHECKS):
        answers = [one.answer for one in chance.sample(sample, min(CHECKED, len(sample)))]
        began = time.monotonic()
        scores = by_batch(project, answers)
        took.append(time.monotonic() - began)
        for answer, score in zip(answers, scores, strict=True):
            if np.float32(answer.score) != np.float32(score):
                raise Failed(f"the stream answered {answer}, and the batch's code gives {score}")
    return median(took)


def _halves(values: Sequence[float]) -> tuple[float, float]:
    """Return the medians of the first and of the second half."""
    middle = len(values) // 2
    return median(values[:middle]), median(values[middle:])
