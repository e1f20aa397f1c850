"""From a Delta table to blocks in Redis, against one SET a key by Redis's own client; and what a key takes there."""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator

from redis import Redis

from jobs.publication import generation
from jobs.publication.generation import Generation
from serving.layout import Layout
from tests.benchmarks.population import PIPELINE
from tests.benchmarks.result import Result, Skipped, alone, compared, compared_small
from tests.benchmarks.stage import Stage, redis_url

KEYS_PER_BLOCK = 64
REMEDY = "no redis-cli: install Debian's redis-tools, Fedora's redis or Homebrew's redis"


def load_and_memory(stage: Stage) -> Iterator[Result]:
    """Keys a second and bytes a key of warm publications, without reading back, and of `redis-cli --pipe`."""
    rows, port = stage.population.rows, stage.redis("redis-load")
    ours, theirs = publication(stage, port), mass_insertion(stage, port)
    with Redis(port=port) as redis:
        stage.say("warming up")
        loaded(redis, ours)
        rates, peers = [], []
        for turn in range(stage.scale.rounds):
            other, own = stage.apart(lambda: [loaded(redis, load) for load in (theirs, ours)])
            peers.append(rows / other)
            rates.append(rows / own)
            stage.say(f"round {turn + 1}: redis-cli {peers[-1]:,.0f}, ours {rates[-1]:,.0f} keys/s")
        bytes_, peer_bytes = (taken(redis, load, rows) / rows for load in (ours, theirs))
        redis.flushall()
    yield compared("publish_vs_redis_cli_pipe", "keys/s", rates, "redis-cli --pipe, one SET a key", peers)
    yield compared_small("memory_bytes_per_key", "B", [bytes_], "one string a key", [peer_bytes])


def cold(stage: Stage) -> Iterator[Result]:
    """Seconds of the whole task in a process of its own: Java's start, blocks, reading back, swap, ledger."""
    port, seconds = stage.live_redis, []
    for turn in range(stage.scale.cold):
        seconds.append(stage.apart(lambda: published(stage, port)))
        stage.say(f"round {turn + 1}: {seconds[-1]:.1f} s")
    yield alone("publish_cold_verified_s", "s", seconds)


def published(stage: Stage, port: int) -> float:
    """Publish the whole population, and return the seconds that it took."""
    start = time.monotonic()
    stage.finish("publish", stage.publishing(port))
    return time.monotonic() - start


def publication(stage: Stage, port: int) -> Callable[[], None]:
    """Return what writes the population's blocks with the stage's warm Spark."""
    rows = stage.population.rows
    _, scores = stage.population.scores(stage.spark)
    target = Generation(redis_url(port), PIPELINE, 1, Layout.fitting(rows, KEYS_PER_BLOCK))
    return lambda: generation.write(scores, target, rows)


def mass_insertion(stage: Stage, port: int) -> Callable[[], None]:
    """Return what loads the same scores as Redis's documentation advises."""
    program = client()
    stage.say("writing the commands for redis-cli")
    commands = stage.population.commands()

    def load() -> None:
        with commands.open("rb") as ready:
            command = [program, "-p", str(port), "--pipe"]
            subprocess.run(command, stdin=ready, stdout=subprocess.DEVNULL, check=True)

    return load


def loaded(redis: Redis, load: Callable[[], None]) -> float:
    """Empty Redis, load it, and return the seconds that it took."""
    redis.flushall()
    start = time.monotonic()
    load()
    return time.monotonic() - start


def taken(redis: Redis, load: Callable[[], None], rows: int) -> int:
    """Empty Redis, load it, and return the bytes that it took.

    While Redis moves keys to a larger table it has both; each command moves some.
    """
    redis.flushall()
    before = int(redis.info("memory")["used_memory"])
    load()
    port = str(redis.get_connection_kwargs()["port"])
    commands = b"EXISTS nothing\r\n" * rows
    subprocess.run([client(), "-p", port, "--pipe"], input=commands, stdout=subprocess.DEVNULL, check=True)
    return int(redis.info("memory")["used_memory"]) - before


def client() -> str:
    """Return redis-cli, or raise `Skipped`."""
    found = shutil.which("redis-cli")
    if found is None:
        raise Skipped(REMEDY)
    return found
