"""Up and down: starts what is not running, waits until all is well, stops exactly what was started."""

import fcntl
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from infra.embedded import airflow_home
from infra.embedded.environment import environment, variables, write_shell
from infra.embedded.errors import EmbeddedError, ServiceFailed
from infra.embedded.places import LOGS, RUN, VAR, Ports, choose_ports
from infra.embedded.processes import MARK, RECORDS, Started, forget, recorded, start, stop
from infra.embedded.scheduler import Scheduler
from infra.embedded.services import Service, airflow, stores, stream_name, streams
from infra.embedded.settings import Settings
from infra.embedded.state import read_json, write

PATIENCE_S = 180.0
TAIL_LINES = 8
STATE = RUN / "runtime.json"
FOLDERS = (RECORDS, LOGS, VAR / "redis", VAR / "mlflow/artifacts", VAR / "tmp", VAR / "landing")
SPARK_POOL = "spark"
SPARK_CONNECTION = {"conn_type": "spark", "host": "local[2]", "extra": json.dumps({"deploy-mode": "client"})}

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Runtime:
    """One life of the runtime: its ports, the mark of its processes, and what it sets for programs."""

    ports: Ports
    mark: str
    variables: dict[str, str]

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment of the runtime's own processes."""
        return environment({**self.variables, MARK: self.mark})

    @property
    def scheduler(self) -> Scheduler:
        """Return Airflow, as its administrator."""
        return Scheduler(self.ports.url("airflow"), airflow_home.password())


@contextmanager
def alone(purpose: str) -> Iterator[None]:
    """Keep a second one out while one is at work for this purpose.

    Raises:
        EmbeddedError: another one is at work.
    """
    RUN.mkdir(parents=True, exist_ok=True)
    with (RUN / f"{purpose}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise EmbeddedError(f"another {purpose} is at work in this folder: let it finish") from error
        yield


def up(tell: Tell, settings: Settings) -> Runtime:
    """Start what is not running and wait until all is well; harmless while it runs.

    Raises:
        ServiceFailed: a service did not come up; what this call started is stopped again, and nothing else.
    """
    with alone("start or stop"):
        running = current()
        before = alive() if running else {}
        runtime = running or fresh(settings)
        try:
            bring_up(runtime, tell, settings)
        except BaseException:
            withdraw(runtime, before)
            raise
        return runtime


def down() -> int:
    """Stop what `up` started, and what that started; return how many processes there were."""
    with alone("start or stop"):
        return finish(load())


def start_stream(pipeline: str, *options: str) -> None:
    """Start the stream of a pipeline beside the services that run; harmless while it runs.

    `options` are those of `scoreline stream start`.

    Raises:
        EmbeddedError: nothing runs that it could belong to, or the pipeline declares no stream.
    """
    with alone("start or stop"):
        runtime = current()
        if runtime is None:
            raise EmbeddedError("nothing is running: make up")
        wanted = [service for service in streams(*options) if service.name == stream_name(pipeline)]
        if not wanted:
            raise EmbeddedError(f"{pipeline} is no pipeline whose YAML declares a stream")
        begin(wanted, alive(), runtime)


def current() -> Runtime | None:
    """Return the runtime while any of its services lives."""
    return load() if alive() else None


def alive() -> dict[str, Started]:
    """Return the services that live, by name."""
    return {service.name: service for service in recorded() if service.process()}


def dead() -> dict[str, Started]:
    """Return the services that were started and not stopped, and do not live, by name."""
    return {service.name: service for service in recorded() if not service.process()}


def load() -> Runtime | None:
    """Return the runtime that was recorded last; None where there is no record that can be read."""
    return read_json(STATE, understood)


def understood(state: dict[str, Any]) -> Runtime:
    """Return the runtime of a record."""
    return Runtime(Ports(**state["ports"]), state["mark"], state["variables"])


def fresh(settings: Settings) -> Runtime:
    """Choose ports and a mark, and write them down; what an earlier life left over is stopped."""
    finish(load())
    for folder in FOLDERS:
        folder.mkdir(parents=True, exist_ok=True)
    ports = choose_ports(settings)
    runtime = Runtime(ports, uuid4().hex, variables(ports, settings))
    write(STATE, json.dumps({"ports": asdict(ports), "mark": runtime.mark, "variables": runtime.variables}))
    return runtime


def withdraw(runtime: Runtime, before: dict[str, Started]) -> None:
    """Stop what was not there before; all of it, with whatever carries the runtime's mark, where nothing was."""
    if before:
        stop(service for service in recorded() if service.name not in before)
    else:
        finish(runtime)


def finish(runtime: Runtime | None) -> int:
    """Stop all that is on record and forget it."""
    first = [service for service in recorded() if service.name.startswith(stream_name(""))]
    stopped = stop(first)  # their last micro-batch needs the stores
    stopped += stop(recorded(), runtime.mark if runtime else "")
    forget()
    for path in (STATE, VAR / "env"):
        path.unlink(missing_ok=True)
    return stopped


def bring_up(runtime: Runtime, tell: Tell, settings: Settings) -> None:
    """Start what is missing: the stores first, and Airflow once its database is there."""
    living = alive()
    services = stores(runtime.ports)
    begin(services, living, runtime)
    airflow_home.configure(runtime.ports)
    tell("Airflow's database")
    airflow_home.migrate(runtime.environment)
    begin(airflow(runtime.ports), living, runtime)
    fresh_scores = streams() if settings.streams else []
    begin(fresh_scores, living, runtime)
    for service in (*services, *airflow(runtime.ports), *fresh_scores):
        tell(f"waiting for {service.name}")
        await_well(service)
    runtime.scheduler.keep_pool(SPARK_POOL, settings.spark_slots)
    runtime.scheduler.keep_connection("spark_default", SPARK_CONNECTION)
    write_shell(runtime.variables)


def begin(services: list[Service], living: dict[str, Started], runtime: Runtime) -> None:
    """Start those of the services that do not live; what a dead one left behind is stopped first."""
    for service in services:
        if service.name not in living:
            stop(left for left in recorded() if left.name == service.name)
            start(service.name, service.command, service.place, {**runtime.environment, **service.variables})


def await_well(service: Service) -> None:
    """Wait until the service's check has nothing to say.

    Raises:
        ServiceFailed: it died, or is not well after some minutes.
    """
    deadline = time.monotonic() + PATIENCE_S
    while fault := service.check():
        if service.name not in alive():
            raise ServiceFailed(f"{service.name} died while it was starting: {tail(service.name)}")
        if time.monotonic() > deadline:
            raise ServiceFailed(f"{service.name} is not well after {PATIENCE_S:.0f} s ({fault}): {tail(service.name)}")
        time.sleep(0.2)


def tail(name: str) -> str:
    """Return where a service's log is and how it ends."""
    path: Path = LOGS / f"{name}.log"
    last = path.read_text(errors="replace").splitlines()[-TAIL_LINES:] if path.is_file() else []
    return "\n  ".join([f"see {path}, which ends with", *last])
