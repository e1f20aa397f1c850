"""The real job of a stream as a process of its own, on a Redis of its own: what a test kills, and starts again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil

from jobs.stream.live import LiveEvents
from serving.clock import microseconds
from serving.errors import ServingError
from serving.keys import stream_key
from serving.overlay import Fresh, OverlayStore
from serving.store import Store
from serving.stream import StreamRecord, parse_stream
from tests.conftest import ROOT, free_port, redis_at
from tests.jobs.shop import EVENTS, NAME
from tests.project import Project

PATIENCE = 240  # seconds for anything that is to happen; a machine may be busy


def await_true(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"nothing of it in {PATIENCE} s"
        time.sleep(0.1)


@dataclass
class Server:
    """A Redis that writes each command to a file, and can be killed."""

    folder: Path
    port: int = field(default_factory=free_port)
    lives: int = 0

    def __post_init__(self) -> None:
        self.stack = ExitStack()
        self.begin()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def begin(self, *, empty: bool = False) -> None:
        """Start it, with what it had written or without."""
        self.lives += empty
        folder = self.folder / f"redis {self.lives}"
        folder.mkdir(exist_ok=True)
        options = ("--appendonly", "yes", "--maxmemory-policy", "noeviction")
        self.process = self.stack.enter_context(redis_at(self.port, folder, *options))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@dataclass
class Streamer:
    """One project's stream, by `python -m jobs`; `now` is what its clock shows when it begins."""

    project: Project
    server: Server
    now: datetime
    starts: int = 0
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.store = Store(self.server.url)
        self.live = LiveEvents(self.project.settings.table(EVENTS))

    def command(self, *words: str) -> subprocess.Popen[bytes]:
        """Start `scoreline stream ...` in a process group of its own; what it says goes to a file."""
        settings, real = self.project.settings, datetime.now(UTC)
        variables = {
            "SCORELINE_PROJECT": str(settings.project),
            "SCORELINE_LAKE": settings.lake,
            "SCORELINE_LANDING": settings.landing,
            "SCORELINE_REPORTS": str(settings.reports),
            "SCORELINE_MLFLOW_URI": settings.mlflow_uri,
            "SCORELINE_REDIS_URL": self.server.url,
            "SCORELINE_CLOCK": f"{self.now.isoformat()}@{real.isoformat()}",
            "PYTHONPATH": str(ROOT),
            "PYSPARK_PYTHON": sys.executable,
        }
        self.starts += 1
        with (self.project.folder / f"stream {self.starts}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "jobs", "stream", *words],
                env={**os.environ, **variables},
                cwd=self.project.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def said(self) -> str:
        """Return what the last process wrote."""
        return (self.project.folder / f"stream {self.starts}.log").read_text()

    def keep_running(self) -> None:
        """Start the job where it does not run, and wait until it says that it does."""
        if self.process is not None and self.process.poll() is None:
            return
        begun = microseconds(self.now)
        with suppress(ServingError):
            self.store.ask("DEL", stream_key(NAME))
        self.process = self.command("start", NAME)
        await_true(lambda: self._is_up(begun))

    def _is_up(self, begun: int) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.said()[-3000:]
        record = self.record()
        return record is not None and record.state == "running" and record.started_at >= begun

    def record(self) -> StreamRecord | None:
        """Return what it last said of itself; None too while Redis is away."""
        with suppress(ServingError):
            raw = self.store.ask("GET", stream_key(NAME))
            return parse_stream(raw) if isinstance(raw, bytes) else None
        return None

    def family(self) -> list[psutil.Process]:
        """Return its processes: the driver in Python, the JVM, and the workers in Python with what starts them."""
        assert self.process is not None
        first = psutil.Process(self.process.pid)
        return [first, *first.children(recursive=True)]

    def kill_all(self) -> None:
        """Kill the whole family at once."""
        _kill(self.family())
        self.ended()

    def kill_python(self) -> None:
        """Kill the driver's Python alone: what it leaves behind has to see to itself."""
        first, *others = self.family()
        _kill([first])
        self.ended()
        psutil.wait_procs(others, timeout=PATIENCE)

    def kill_java(self) -> None:
        """Kill the driver's JVM alone."""
        family = self.family()
        _kill([each for each in family if each.name() == "java"])
        self.ended()
        psutil.wait_procs(family, timeout=PATIENCE)

    def kill_workers(self) -> None:
        """Kill the workers in Python as soon as there are some; the job may end by that or not."""
        await_true(lambda: bool(self.workers()) or self.process is None or self.process.poll() is not None)
        _kill(self.workers())

    def workers(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return [each for each in self.family() if "pyspark.daemon" in _words(each)]
        return []

    def ended(self) -> int:
        """Wait until its first process has ended, and return its exit code."""
        assert self.process is not None
        return self.process.wait(PATIENCE)

    def terminated(self) -> int:
        """Ask it to end, as any supervisor would, and return its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.ended()

    def close(self) -> None:
        """End what is left."""
        with suppress(psutil.NoSuchProcess):
            _kill(self.family() if self.process else [])
        if self.process is not None:
            self.process.wait()
        self.store.__exit__(None, None, None)
        self.server.stack.close()

    def fresh(self) -> dict[str, Fresh]:
        """Return the overlay of the live epoch."""
        head = self.store.head(NAME)
        assert head is not None
        return {entry.key: entry for entry in OverlayStore(self.store).entries(head)}


def _kill(processes: list[psutil.Process]) -> None:
    for each in processes:
        with suppress(psutil.NoSuchProcess):
            each.send_signal(signal.SIGKILL)


def _words(process: psutil.Process) -> list[str]:
    with suppress(psutil.NoSuchProcess):
        return list(process.cmdline())
    return []
