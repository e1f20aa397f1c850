"""Where the runtime keeps things, and the ports that it takes."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path

from infra.embedded.errors import EmbeddedError

ROOT = Path(__file__).parents[2]
SETUP = ROOT / "var"  # what set-up made
VAR = Path(os.environ.get("SCORELINE_VAR") or SETUP).absolute()  # what a run writes
RUN = VAR / "run"
LOGS = VAR / "logs"
VENV = SETUP / "venv" / "bin"
LOOPBACK = "127.0.0.1"

# What is asked for first; another free port where somebody has it already. SCORELINE_<NAME>_PORT decides otherwise.
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


def choose_ports() -> Ports:
    """Return the ports asked for in the environment, else the preferred ones, else free ones.

    Raises:
        EmbeddedError: a port that was asked for is no number, or is taken.
    """
    return Ports(**{name: choose(name, preferred) for name, preferred in PREFERRED.items()})


def choose(name: str, preferred: int) -> int:
    """Return the port for one service."""
    variable = f"SCORELINE_{name.upper()}_PORT"
    asked = os.environ.get(variable, "")
    if not asked:
        return preferred if is_free(preferred) else any_free()
    if not asked.isdigit() or not is_free(int(asked)):
        raise EmbeddedError(f"{variable}={asked} is no free port of {LOOPBACK}: choose another or unset it")
    return int(asked)


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
