"""Processes of the runtime: started in groups of their own, kept in var/run, stopped exactly."""

import json
import math
import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from infra.embedded.birth import began, boot
from infra.embedded.places import LOGS, RUN
from infra.embedded.state import read_json, write

# Given to every process that we start and inherited by what it starts: how a left-over Spark is found.
MARK = "SCORELINE_RUNTIME"
RECORDS = RUN / "services"
SAME_START_S = 0.5
GRACE_S = 10.0


@dataclass(frozen=True)
class Started:
    """A service that was started: its process, when that began and since which boot (see birth.py), where it is."""

    name: str
    pid: int
    began: float
    boot: str
    place: str
    log: str

    def process(self) -> psutil.Process | None:
        """Return the process while it lives and is still ours: a pid is used again by others."""
        try:
            process = psutil.Process(self.pid)
            return process if self._began_then() and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None

    def holds_its_pid(self) -> bool:
        """Tell whether a session of this number can only be ours: nobody else has the pid."""
        try:
            return self._began_then()
        except psutil.NoSuchProcess:
            return True

    def _began_then(self) -> bool:
        return abs(began(self.pid) - self.began) < SAME_START_S


def start(name: str, command: Iterable[str | Path], place: str, environment: dict[str, str]) -> Started:
    """Start a service in a session of its own, with its output in var/logs, and keep a record of it."""
    log = LOGS / f"{name}.log"
    program = [str(part) for part in command]
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    # Not by subprocess: it minds that a service outlives the object that started it.
    defaults = (signal.SIGINT, signal.SIGPIPE)
    pid = os.posix_spawn(program[0], program, environment, file_actions=files, setsid=True, setsigdef=defaults)
    started = Started(name, pid, began(pid), boot(), place, str(log))
    record(started)
    return started


def record(started: Started) -> None:
    """Write it down before anything else can go wrong."""
    write(RECORDS / f"{started.name}.json", json.dumps(asdict(started)))


def recorded() -> list[Started]:
    """Return what was started since the machine's boot and not stopped since."""
    found = (read_json(path, lambda content: Started(**content)) for path in sorted(RECORDS.glob("*.json")))
    return [service for service in found if service and service.boot == boot()]


def forget() -> None:
    """Remove all records, also those that cannot be read and those of before the boot."""
    for path in RECORDS.glob("*.json"):
        path.unlink(missing_ok=True)


def stop(services: Iterable[Started], mark: str = "") -> int:
    """Stop these services, all that they started, and whatever carries the mark; return how many processes.

    The services themselves are asked first, for they may still need what they started, then all others; who is there
    some seconds later is killed.
    """
    services = list(services)
    ours, leaders = belonging(services, mark), {service.pid for service in services}
    ask_to_end({process for process in ours if process.pid in leaders})
    ours |= belonging(services, mark)
    ask_to_end(ours)
    late = belonging(services, mark) | {process for process in ours if process.is_running()}
    for process in late:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(late, timeout=GRACE_S)
    for service in services:
        (RECORDS / f"{service.name}.json").unlink(missing_ok=True)
    return len(ours | late)


def ask_to_end(asked: set[psutil.Process]) -> None:
    """Send them the polite signal, and give them some seconds."""
    for process in asked:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    psutil.wait_procs(asked, timeout=GRACE_S)


def belonging(services: Iterable[Started], mark: str) -> set[psutil.Process]:
    """Return the processes of these services' sessions, their descendants, and those that carry the mark.

    One of the three alone is not enough: a task's parent may have been killed, a task may have a session of its own,
    and Airflow's workers write their titles over their environment. Nothing of a session is older than what began it.
    """
    sessions = {service.pid: service.began for service in services if service.holds_its_pid()}
    found = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            since = sessions.get(os.getsid(process.pid), math.inf)
            if began(process.pid) > since - SAME_START_S or (mark and process.environ().get(MARK) == mark):
                found |= {process, *process.children(recursive=True)}
    return {process for process in found if process.pid != os.getpid()}
