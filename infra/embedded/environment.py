"""The environment of every program of the runtime, and var/env, which gives it to a person's shell."""

import os
import shlex

from infra.embedded.errors import EmbeddedError
from infra.embedded.places import LOOPBACK, SETUP, VAR, VENV, Ports
from infra.embedded.settings import Settings, inherited
from infra.embedded.state import read_json, write

TOOLCHAIN = SETUP / "conf" / "toolchain.json"
# Another Airflow, Spark or MLflow that this shell knows of must not leak in.
FOREIGN = ("AIRFLOW", "MLFLOW", "SPARK_", "PYSPARK_", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
# What is on this machine is asked without a proxy.
DIRECT = (LOOPBACK, "localhost")
NO_PROXY = ("NO_PROXY", "no_proxy")


def variables(ports: Ports, settings: Settings) -> dict[str, str]:
    """Return what the runtime sets.

    Raises:
        EmbeddedError: set-up has not been run.
    """
    toolchain: dict[str, str] | None = read_json(TOOLCHAIN, dict)
    if toolchain is None:
        raise EmbeddedError(f"{TOOLCHAIN} is missing: run `make setup`")
    return {
        **toolchain,
        "AIRFLOW_HOME": str(VAR / "airflow"),
        "MLFLOW_TRACKING_URI": ports.url("mlflow"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes for what we do not use
        "DO_NOT_TRACK": "1",
        "SCORELINE_LAKE": settings.lake or str(VAR / "lake"),
        "SCORELINE_LANDING": settings.landing or str(VAR / "landing"),
        "SCORELINE_REPORTS": settings.reports or str(VAR / "reports"),
        "SCORELINE_ERASURE_KEY_FILE": settings.erasure_key_file or str(VAR / "erasure.key"),
        "SCORELINE_MLFLOW_URI": ports.url("mlflow"),
        "SCORELINE_REDIS_URL": f"{ports.url('redis')}/0",
        "SCORELINE_HOST": LOOPBACK,
        "SCORELINE_PORT": str(ports.lookup),
        "SCORELINE_URL": ports.url("lookup"),
        "SCORELINE_CLOCK": settings.clock,
        "SCORELINE_VAR": str(VAR),
        "SCORELINE_STREAM_RESTART": stream_command() if settings.streams else "",
    }


def stream_command() -> str:
    """Return the command line that starts the stream of `{pipeline}`, wherever it is run."""
    return shlex.join([str(VENV / "python"), "-m", "infra.embedded", "stream", "{pipeline}"])


def environment(ours: dict[str, str]) -> dict[str, str]:
    """Return this process's environment with `ours` in it, and the programs of set-up first on PATH."""
    given = inherited()
    kept = {name: value for name, value in given.items() if not name.startswith(FOREIGN)}
    path = os.pathsep.join([str(SETUP / "bin"), str(VENV), given.get("PATH", os.defpath)])
    direct = {name: ",".join([*DIRECT, *filter(None, [given.get(name)])]) for name in NO_PROXY}
    return {**kept, **direct, **ours, "PATH": path}


def write_shell(ours: dict[str, str]) -> None:
    """Write var/env: what a shell sources to use `scoreline` and `airflow` on the running services."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in ours.items()]
    lines += [f'export {name}="{",".join(DIRECT)}${{{name}:+,${name}}}"' for name in NO_PROXY]
    path = ":".join(shlex.quote(str(place)) for place in (SETUP / "bin", VENV))
    write(VAR / "env", "\n".join([*lines, f'export PATH={path}:"$PATH"', "unset PYTHONPATH", ""]))
