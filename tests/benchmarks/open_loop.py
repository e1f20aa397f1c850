"""Latency at a constant rate: requests leave by a schedule, whatever comes back, and are timed from it.

Vegeta starts each request in a goroutine of its own when it is due, however many still wait, so that a slow answer
neither delays nor hides later ones (coordinated omission). Its own times begin when a request does; ours begin when it
was due, so that no delay of the generator is lost either.
"""

import base64
import csv
import json
import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from redis import Redis

from infra.bench import vegeta
from serving.keys import claim_key, head_key
from tests.benchmarks.population import PIPELINE, key_of, right
from tests.benchmarks.result import Result, alone, compared_small
from tests.benchmarks.stage import Failed, Stage

RATE = 5000
CALM_RATE = 1000  # a publication keeps both cores busy beside it
KEYS = 100_000
CONNECTIONS = 64  # as a caller's pool: a request that finds none free waits, and its time counts
WARM_S = 3
LOOK_S = 0.02
OK = "200"


@dataclass(frozen=True)
class Timed:
    """Requests: when each was due, in seconds since 1970 (n,), and milliseconds from then to its answer (n,)."""

    due: npt.NDArray[np.float64]
    milliseconds: npt.NDArray[np.float64]

    def p99(self, since: float = 0, until: float = float("inf")) -> float:
        """Return the 99th percentile of the requests that were due between two instants, in milliseconds."""
        return float(np.percentile(self.milliseconds[(self.due >= since) & (self.due < until)], 99))


def at_5000(stage: Stage) -> Iterator[Result]:
    """Milliseconds that one in a hundred lookups exceeds, at 5,000 a second."""
    attack(stage, RATE, WARM_S)
    values = []
    for turn in range(stage.scale.rounds):
        timed = stage.apart(lambda: attack(stage, RATE, stage.scale.seconds))
        values.append(timed.p99())
        stage.say(f"round {turn + 1}: p99 {values[-1]:.2f} ms, median {np.median(timed.milliseconds):.2f} ms")
    yield alone("lookup_p99_ms_at_5000", "ms", values)


def during_publication(stage: Stage) -> Iterator[Result]:
    """The same at a lower rate while the whole population is published, beside the same rate on an idle machine."""
    attack(stage, CALM_RATE, WARM_S)
    busy, idle = [], []
    for turn in range(stage.scale.cold):
        calm, beside = stage.apart(
            lambda: (attack(stage, CALM_RATE, stage.scale.seconds).p99(), _beside_publication(stage))
        )
        idle.append(calm)
        busy.append(beside)
        stage.say(f"round {turn + 1}: p99 idle {idle[-1]:.2f} ms, while publishing {busy[-1]:.2f} ms")
    yield compared_small("lookup_p99_during_publish", "ms", busy, f"idle, {CALM_RATE:,}/s as well", idle)


def attack(stage: Stage, rate: int, seconds: int) -> Timed:
    """Ask for single keys at a constant rate; raise `Failed` for any answer that is not right."""
    return finished(stage, started(stage, rate, seconds), rate)


def started(stage: Stage, rate: int, seconds: int) -> subprocess.Popen[bytes]:
    """Start to ask at a constant rate, for so many seconds; 0 is until it is told to end."""
    files = ["-targets", str(_targets(stage)), "-output", str(_results(stage))]
    how = ["-rate", f"{rate}/s", "-duration", f"{seconds}s", "-timeout", "10s", "-max-connections", str(CONNECTIONS)]
    how += ["-header", f"X-API-Key: {stage.api_key}"]
    return stage.start("vegeta", [str(vegeta.program(stage.folder)), "attack", *files, *how])


def finished(stage: Stage, process: subprocess.Popen[bytes], rate: int) -> Timed:
    """Wait for the end of an attack, check all its answers, and return their times."""
    stage.finish("vegeta", process)
    command = [str(vegeta.program(stage.folder)), "encode", "-to", "csv", str(_results(stage))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as encode:
        assert encode.stdout is not None  # for mypy: it was asked for
        answers = list(csv.reader(encode.stdout))
    faults = Counter(f"{answer[1]} {answer[5]}" for answer in answers if answer[1] != OK)
    if faults:
        raise Failed(f"at {rate:,}/s {faults.total():,} of {len(answers):,} requests failed: {faults.most_common(3)}")
    return timed(np.array([_checked(answer) for answer in answers], dtype=np.int64), rate)


def timed(rows: npt.NDArray[np.int64], rate: int) -> Timed:
    """Return the times of requests (n, 3): number in the schedule, begin in ns since 1970, ns from there to the end."""
    number, began, took = rows[np.argsort(rows[:, 0])].T
    offsets = number * (1_000_000_000 / rate)
    due = (began - offsets).min() + offsets  # the first may be late itself
    return Timed(due / 1e9, (began - due + took) / 1e6)


def _checked(row: list[str]) -> tuple[int, int, int]:
    """The columns of `vegeta encode -to csv`; the body is the seventh."""
    began, _, took, _, _, _, body, _, number, _, url, _ = row
    key = url.rpartition("/")[2]
    answer: dict[str, Any] = json.loads(base64.b64decode(body))
    if answer["key"] != key or not right(key, answer["score"]):
        raise Failed(f"{url} answered {answer}")
    return int(number), int(began), int(took)


def _beside_publication(stage: Stage) -> float:
    """Return the percentile of what was due while a publication had the claim: from before its first block to its swap.

    What it does before, such as starting Java, takes the same cores but would hide the rest.
    """
    lookups = started(stage, CALM_RATE, 0)
    publishing = stage.publishing(stage.live_redis)
    with Redis(port=stage.live_redis) as redis:
        since = changed(redis, claim_key(PIPELINE), publishing)
        until = changed(redis, head_key(PIPELINE), publishing)
    stage.finish("publish", publishing)
    lookups.terminate()
    return finished(stage, lookups, CALM_RATE).p99(since, until)


def changed(redis: Redis, name: str, process: subprocess.Popen[bytes]) -> float:
    """Wait until a process has changed a record, or has ended, and return when."""
    before = redis.get(name)
    while redis.get(name) == before and process.poll() is None:
        time.sleep(LOOK_S)
    return time.time()


def _targets(stage: Stage) -> Path:
    """Write the requests: keys drawn uniformly from all."""
    url, path = stage.live, stage.folder / "targets.txt"
    path.write_text("\n".join(f"GET {url}/v1/scores/{PIPELINE}/{key}\n" for key in _keys(stage.population.rows)))
    return path


def _keys(rows: int) -> Iterable[str]:
    chance = random.Random(1)  # noqa: S311  reason: a sample, no secret
    return (key_of(chance.randrange(rows)) for _ in range(KEYS))


def _results(stage: Stage) -> Path:
    return stage.folder / "attack.bin"
