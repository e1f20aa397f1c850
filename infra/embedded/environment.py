"""The environment of every program of the runtime, and var/env, which gives it to a person's shell."""

import json
import os
import shlex

from infra.embedded.errors import EmbeddedError
from infra.embedded.places import LOOPBACK, SETUP, VAR, VENV, Ports

TOOLCHAIN = SETUP / "conf" / "toolchain.json"
# Another Airflow, Spark or MLflow that this shell knows of must not leak in.
FOREIGN = ("AIRFLOW", "MLFLOW", "SPARK_", "PYSPARK_", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
SPARK_CONNECTION = {"conn_type": "spark", "host": "local[2]", "extra": {"deploy-mode": "client"}}


def variables(ports: Ports) -> dict[str, str]:
    """Return what the runtime sets.

    Raises:
        EmbeddedError: set-up has not been run.
    """
    if not TOOLCHAIN.is_file():
        raise EmbeddedError(f"{TOOLCHAIN} is missing: run `make setup`")
    toolchain: dict[str, str] = json.loads(TOOLCHAIN.read_text())
    return {
        **toolchain,
        "AIRFLOW_HOME": str(VAR / "airflow"),
        "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps(SPARK_CONNECTION),
        "MLFLOW_TRACKING_URI": ports.url("mlflow"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes for what we do not use
        "DO_NOT_TRACK": "1",
        "SCORELINE_LAKE": os.environ.get("SCORELINE_LAKE", str(VAR / "lake")),
        "SCORELINE_LANDING": os.environ.get("SCORELINE_LANDING", str(VAR / "landing")),
        "SCORELINE_REPORTS": os.environ.get("SCORELINE_REPORTS", str(VAR / "reports")),
        "SCORELINE_MLFLOW_URI": ports.url("mlflow"),
        "SCORELINE_REDIS_URL": f"{ports.url('redis')}/0",
        "SCORELINE_HOST": LOOPBACK,
        "SCORELINE_PORT": str(ports.lookup),
        "SCORELINE_CLOCK": os.environ.get("SCORELINE_CLOCK", "real"),
    }


def environment(ours: dict[str, str]) -> dict[str, str]:
    """Return this process's environment with `ours` in it, and the programs of set-up first on PATH."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    path = os.pathsep.join([str(SETUP / "bin"), str(VENV), os.environ.get("PATH", os.defpath)])
    return {**inherited, **ours, "PATH": path}


def write_shell(ours: dict[str, str]) -> None:
    """Write var/env: what a shell sources to use `scoreline` and `airflow` on the running services."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in ours.items()]
    path = ":".join(shlex.quote(str(place)) for place in (SETUP / "bin", VENV))
    (VAR / "env").write_text("\n".join([*lines, f'export PATH={path}:"$PATH"', "unset PYTHONPATH", ""]))
