"""Where the runtime keeps things, and the ports that it takes."""

import socket
from dataclasses import dataclass
from pathlib import Path

from infra.embedded.errors import EmbeddedError
from infra.embedded.settings import PREFIX, ROOT, Place, Settings

SETUP = ROOT / "var"  # what set-up made
VAR = Place().var.absolute()  # what a run writes
RUN = VAR / "run"
LOGS = VAR / "logs"
VENV = SETUP / "venv" / "bin"
LOOPBACK = "127.0.0.1"

# What is tried first; another free port where somebody has it already.
PREFERRED = {"redis": 6380, "mlflow": 5000, "airflow": 8080, "lookup": 8700}


@dataclass(frozen=True)
class Ports:
    """One TCP port of the loopback interface for each service that listens."""

    redis: int
    mlflow: int
    airflow: int
    lookup: int

    def url(self, name: str) -> str:
        """Return where a service is."""
        scheme = "redis" if name == "redis" else "http"
        return f"{scheme}://{LOOPBACK}:{getattr(self, name)}"


def choose_ports(settings: Settings) -> Ports:
    """Return the ports that the settings ask for, else the preferred ones, else free ones.

    Raises:
        EmbeddedError: a port that was asked for is taken.
    """
    asked = {name: getattr(settings, f"{name}_port") for name in PREFERRED}
    return Ports(**{name: choose(name, asked[name]) for name in PREFERRED})


def choose(name: str, asked: int | None) -> int:
    """Return the port for one service."""
    if asked is None:
        return PREFERRED[name] if is_free(PREFERRED[name]) else any_free()
    if not is_free(asked):
        variable = f"{PREFIX}{name.upper()}_PORT"
        raise EmbeddedError(f"{variable}={asked} is no free port of {LOOPBACK}: choose another or unset it")
    return asked


def is_free(port: int) -> bool:
    """Tell whether somebody could listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except (OSError, OverflowError):
            return False
        return True


def any_free() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def shown(path: Path) -> str:
    """Return a path as a person in the project's folder writes it."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
