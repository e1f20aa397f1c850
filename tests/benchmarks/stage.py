"""What benchmarks stand on: servers on free ports, one warm Spark, one live generation; all stopped at the end."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import httpx
from pyspark.sql import SparkSession

from jobs.session import spark_session
from serving.apikeys import new_key
from tests.benchmarks.machine import Neighbours
from tests.benchmarks.population import DAY, PIPELINE, Population
from tests.conftest import ROOT, await_port, free_port, redis_binary

T = TypeVar("T")

START_S = 120
STOP_S = 15
LONG = ROOT / "var/conf/long"  # Spark's configuration for jobs that run on and on


@dataclass(frozen=True)
class Scale:
    """How much is measured: keys, runs of each side, seconds of load a run, cold starts, Feast's keys, swaps.

    Of a backfill: how many dates. Of the stream: how often the real purchases are there in the long history, seconds at
    each rate, and of warming up.
    """

    rows: int = 5_000_000
    rounds: int = 5
    seconds: int = 8
    cold: int = 3
    feast_rows: int = 1_000_000
    swaps: int = 10
    dates: int = 90
    copies: int = 100
    arrivals: int = 300
    warming: int = 300


QUICK = Scale(
    rows=200_000, rounds=2, seconds=2, cold=1, feast_rows=10_000, swaps=2, dates=4, copies=2, arrivals=20, warming=10
)


class Failed(Exception):
    """A program of a benchmark failed; the message names its log."""


class Stage:
    """Starts what is asked for, once, below `folder`; whatever happens, leaving it stops all by process id."""

    def __init__(self, folder: Path, scale: Scale, say: Callable[[str], None]) -> None:
        self.folder, self.scale, self.say = folder, scale, say
        self.population = Population(folder / f"population-{scale.rows}", scale.rows)
        self.api_key, self._key_line = new_key("benchmark", [PIPELINE])
        self.neighbours = Neighbours()
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self._open.close()

    def apart(self, measure: Callable[[], T]) -> T:
        """Return what a round measured while other guests of the host left us the cores, if they ever do."""
        return self.neighbours.apart(measure, self.say)

    @cached_property
    def spark(self) -> SparkSession:
        """One warm Spark, made as the jobs make theirs."""
        self.say("starting Spark")
        with long_jobs():
            session = spark_session("benchmarks")
        self._open.callback(session.stop)
        return session

    def start(self, name: str, command: Sequence[str | Path], **variables: str) -> subprocess.Popen[bytes]:
        """Start a program, with further variables in its environment; what it says is in `logs/<name>.log`."""
        log = self.log(name)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as out:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **variables},
                cwd=ROOT,
                start_new_session=True,  # so that its own children can be stopped with it
            )
        self._open.callback(stop, process)
        return process

    def finish(self, name: str, process: subprocess.Popen[bytes]) -> None:
        """Wait for a program's end, or raise `Failed`."""
        if process.wait() != 0:
            raise Failed(f"{name} failed with exit code {process.returncode}: see {self.log(name)}")

    def log(self, name: str) -> Path:
        """Return where a program's output is."""
        return self.folder / "logs" / f"{name}.log"

    def redis(self, name: str) -> int:
        """Start a Redis that keeps all it is given, and nothing on disk; return its port."""
        port, folder = free_port(), self.folder / "redis"
        folder.mkdir(parents=True, exist_ok=True)
        where = ("--port", str(port), "--bind", "127.0.0.1", "--dir", folder)
        how = ("--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction")
        self.start(name, [redis_binary(), *where, *how])
        await_port(port)
        return port

    def web(self, name: str, command: Sequence[str | Path], page: str, **variables: str) -> None:
        """Start a web server and wait until `page` answers 200."""
        process = self.start(name, command, **variables)
        deadline = time.monotonic() + START_S
        while not _answers(page):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"{name} does not answer at {page}: see {self.log(name)}")
            time.sleep(0.1)

    def service(self, redis: int, **variables: str) -> str:
        """Start the lookup service, one worker, which asks for an API key, on a Redis; return its address."""
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        where = {"SCORELINE_REDIS_URL": redis_url(redis), "SCORELINE_PORT": str(port)}
        where["SCORELINE_API_KEYS_FILE"] = str(self.keys)
        self.web("service", [sys.executable, "-m", "serving"], f"{url}/readyz", **where, **variables)
        return url

    @cached_property
    def keys(self) -> Path:
        """The file of API keys, which has the stage's."""
        path = self.folder / "api-keys"
        path.write_text(self._key_line + "\n")
        return path

    def scoreline(self, redis: int, variables: Mapping[str, str], *command: str) -> subprocess.Popen[bytes]:
        """Start `scoreline` on a Redis, and on what `variables` name; its log is called as its command."""
        where = {"SCORELINE_REDIS_URL": redis_url(redis), **variables}
        return self.start(command[0], [sys.executable, "-m", "jobs", *command], **where)

    def publishing(self, redis: int) -> subprocess.Popen[bytes]:
        """Start the whole publication of the population as a job of its own."""
        command = ("publish", PIPELINE, "--day", str(DAY), "--run-id", "benchmark")
        return self.scoreline(redis, self.population.variables, *command)

    @cached_property
    def live_redis(self) -> int:
        """The port of a Redis where the whole population is live."""
        self.population.run(self.spark)
        port = self.redis("redis-live")
        self.say(f"publishing {self.population.rows:,} scores")
        self.finish("publish", self.publishing(port))
        return port

    @cached_property
    def live(self) -> str:
        """The address of a lookup service, one worker, over `live_redis`."""
        return self.service(self.live_redis)


@contextlib.contextmanager
def long_jobs() -> Iterator[None]:
    """Let Spark begin as for jobs that run on and on: the usual configuration suits short ones."""
    usual = os.environ["SPARK_CONF_DIR"]
    os.environ["SPARK_CONF_DIR"] = str(LONG)
    try:
        yield
    finally:
        os.environ["SPARK_CONF_DIR"] = usual


def redis_url(port: int) -> str:
    """Return the URL of a Redis of the stage."""
    return f"redis://127.0.0.1:{port}/0"


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a program that the stage started: politely, then surely, with the children that it left."""
    if process.returncode is not None:  # its number may be another's by now
        return
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _answers(page: str) -> bool:
    try:
        return httpx.get(page).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
