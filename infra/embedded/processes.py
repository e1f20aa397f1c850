"""Processes of the runtime: started in groups of their own, kept in var/run, stopped exactly."""

import json
import os
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from infra.embedded.places import LOGS, RUN

# Given to every process that we start and inherited by what it starts: how a left-over Spark is found.
MARK = "SCORELINE_RUNTIME"
RECORDS = RUN / "services"
SAME_START_S = 2.0
GRACE_S = 10.0


@dataclass(frozen=True)
class Started:
    """A service that was started: its process, when that process began (seconds since 1970), where it is."""

    name: str
    pid: int
    began: float
    place: str
    log: str

    def process(self) -> psutil.Process | None:
        """Return the process while it lives and is still ours: a pid is used again by others."""
        try:
            process = psutil.Process(self.pid)
            ours = abs(process.create_time() - self.began) < SAME_START_S
            return process if ours and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


def start(name: str, command: Iterable[str | Path], place: str, environment: dict[str, str]) -> Started:
    """Start a service in a session of its own, with its output in var/logs, and keep a record of it."""
    log = LOGS / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    started = Started(name, process.pid, psutil.Process(process.pid).create_time(), place, str(log))
    record(started)
    return started


def record(started: Started) -> None:
    """Write it down before anything else can go wrong."""
    (RECORDS / f"{started.name}.json").write_text(json.dumps(asdict(started)))


def recorded() -> list[Started]:
    """Return what was started and not stopped since."""
    return [Started(**json.loads(path.read_text())) for path in sorted(RECORDS.glob("*.json"))]


def stop_all(mark: str) -> int:
    """Stop what is recorded, all that descends from it, and whatever carries the runtime's mark; return how many.

    They are asked first, and killed after some seconds.
    """
    services = recorded()
    roots = [process for service in services if (process := service.process())]
    ours = {*roots, *descendants(roots), *marked(mark)}
    for process in ours:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, stubborn = psutil.wait_procs(ours, timeout=GRACE_S)
    late = {*stubborn, *descendants(stubborn), *marked(mark)}
    for process in late:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(late, timeout=GRACE_S)
    for service in services:
        (RECORDS / f"{service.name}.json").unlink(missing_ok=True)
    return len(ours | late)


def descendants(roots: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return all that these started, directly or not."""
    found: list[psutil.Process] = []
    for root in roots:
        with suppress(psutil.NoSuchProcess):
            found += root.children(recursive=True)
    return found


def marked(mark: str) -> list[psutil.Process]:
    """Return the processes that carry the runtime's mark: tasks whose parents were killed still have it."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if mark and process.pid != os.getpid() and process.environ().get(MARK) == mark:
                found.append(process)
    return found
