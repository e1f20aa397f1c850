"""Lookups a second, by wrk over 32 connections that each wait for their answer; keys uniform over all."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from redis import Redis

from infra.bench import debian
from tests.benchmarks.population import PIPELINE, key_of, right
from tests.benchmarks.publication import mass_insertion
from tests.benchmarks.result import Result, alone, compared
from tests.benchmarks.stage import Failed, Stage, redis_url
from tests.conftest import free_port

SCRIPT = Path(__file__).with_name("lookup.lua")
CONNECTIONS = 32
SHARE = 16  # one answer in so many is checked
UNCHECKED = 0  # for answers that do not say whose they are: these are sampled
SAMPLE = 200
KEYS_A_BATCH = 100
WARM_S = 2


@dataclass(frozen=True)
class Target:
    """Where keys are asked for, how (`get`, `batch`, `feast`), of how many keys, which share is checked, by whom."""

    url: str
    path: str
    rows: int
    kind: str = "get"
    share: int = SHARE
    api_key: str = ""


def single(stage: Stage) -> Target:
    """Return our service, asked for single keys of the whole population."""
    return Target(stage.live, f"/v1/scores/{PIPELINE}/", stage.population.rows, api_key=stage.api_key)


def vs_webdis(stage: Stage) -> Iterator[Result]:
    """Single keys, against webdis answering GET from the same Redis, which also holds one string a key."""
    ours, theirs = single(stage), Target(webdis(stage), "/GET/", stage.population.rows, share=UNCHECKED)
    sample(theirs)
    yield compared("lookup_vs_webdis", "lookups/s", *alternating(stage, ours, theirs, "webdis, one GET a key"))


def vs_fastapi(stage: Stage) -> Iterator[Result]:
    """Single keys, against FastAPI with redis-py and one GET a key, on uvicorn."""
    theirs = Target(plain_get(stage), "/scores/", stage.population.rows)
    yield compared(
        "lookup_vs_fastapi", "lookups/s", *alternating(stage, single(stage), theirs, "FastAPI, one GET a key")
    )


def vs_uvicorn(stage: Stage) -> Iterator[Result]:
    """Single keys, against the same application on uvicorn: what our own server is for."""
    where = {"SCORELINE_REDIS_URL": redis_url(stage.live_redis), "SCORELINE_API_KEYS_FILE": str(stage.keys)}
    url = asgi(stage, "application:application", "--factory", **where)
    theirs = Target(url, f"/v1/scores/{PIPELINE}/", stage.population.rows, api_key=stage.api_key)
    yield compared("lookup_vs_uvicorn", "lookups/s", *alternating(stage, single(stage), theirs, "our own, on uvicorn"))


def batches(stage: Stage) -> Iterator[Result]:
    """Keys a second, a hundred in a request."""
    target = Target(stage.live, f"/v1/scores/{PIPELINE}", stage.population.rows, "batch", api_key=stage.api_key)
    requests_a_second(stage, target, WARM_S)
    rates = []
    for turn in range(stage.scale.rounds):
        rate = stage.apart(lambda: requests_a_second(stage, target, stage.scale.seconds))
        rates.append(KEYS_A_BATCH * rate)
        stage.say(f"round {turn + 1}: {rates[-1]:,.0f} keys/s")
    yield alone("batch_lookup_keys_per_s", "keys/s", rates)


def alternating(stage: Stage, ours: Target, theirs: Target, peer: str) -> tuple[list[float], str, list[float]]:
    """Return the rates of our runs, the peer's name, and the rates of its runs, taken in turns."""
    for target in (theirs, ours):
        requests_a_second(stage, target, WARM_S)
    rates, others = [], []
    for turn in range(stage.scale.rounds):
        other, rate = stage.apart(
            lambda: [requests_a_second(stage, target, stage.scale.seconds) for target in (theirs, ours)]
        )
        others.append(other)
        rates.append(rate)
        stage.say(f"round {turn + 1}: {peer} {others[-1]:,.0f}, ours {rates[-1]:,.0f} requests/s")
    return rates, peer, others


def requests_a_second(stage: Stage, target: Target, seconds: int) -> float:
    """Return the rate at which wrk got right answers; raise `Failed` for any that was not."""
    wrk = [*debian.program("wrk", stage.folder), "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "10s"]
    wrk += ["-H", f"X-API-Key: {target.api_key}"] if target.api_key else []
    arguments = ["--", str(target.rows), str(target.share), target.kind, target.path]
    command = [*wrk, "-s", str(SCRIPT), target.url, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"wrk failed on {target.url}{target.path}: {done.stderr.strip()}")
    found = json.loads(done.stdout.splitlines()[-1])
    if found["failed"] or found["wrong"] or (target.share and not found["checked"]):
        raise Failed(f"{target.url}{target.path} gave failed or wrong answers: {found}")
    return float(found["requests"] / found["seconds"])


def sample(target: Target) -> None:
    """Check some answers of webdis, which do not say whose they are; raise `Failed` for a wrong one."""
    for number in random.Random(1).sample(range(target.rows), SAMPLE):  # noqa: S311  reason: a sample, no secret
        value = httpx.get(f"{target.url}{target.path}{key_of(number)}").json()["GET"]
        if value is None or not right(key_of(number), float(value)):
            raise Failed(f"{target.url}{target.path}{key_of(number)} answers {value}")


def webdis(stage: Stage) -> str:
    """Start webdis as Debian configures it, over the live Redis with strings beside the blocks."""
    program, port, config = debian.program("webdis", stage.folder), free_port(), stage.folder / "webdis.json"
    redis = strings_beside(stage)
    told = {"redis_host": "127.0.0.1", "redis_port": redis, "http_host": "127.0.0.1", "http_port": port}
    own = {"threads": 2, "daemonize": False, "database": 0, "verbosity": 3, "logfile": str(stage.log("webdis"))}
    config.write_text(json.dumps({**told, **own}))
    url = f"http://127.0.0.1:{port}"
    stage.web("webdis-output", [*program, config], f"{url}/PING")
    return url


def plain_get(stage: Stage) -> str:
    """Start the plain FastAPI service, one worker."""
    return asgi(stage, "plain_get:app", REDIS_URL=redis_url(strings_beside(stage)))


def asgi(stage: Stage, program: str, *options: str, **variables: str) -> str:
    """Start an application as its users do, one worker; but without the line of log a request that ours writes."""
    port, name = free_port(), program.partition(":")[0]
    how = ("--port", str(port), "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning")
    command = [sys.executable, "-m", "uvicorn", *how, *options, f"tests.benchmarks.peers.{program}"]
    stage.web(name, command, f"http://127.0.0.1:{port}/openapi.json", **variables)
    return f"http://127.0.0.1:{port}"


def strings_beside(stage: Stage) -> int:
    """Load one string a key into the live Redis, beside the blocks, unless they are there; return its port."""
    port = stage.live_redis
    with Redis(port=port) as redis:
        if not redis.exists(key_of(0)):
            mass_insertion(stage, port)()
    return port
