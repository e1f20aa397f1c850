"""The services: how each is started, and how each says that it is well."""

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx

from infra.embedded.places import LOOPBACK, SETUP, VAR, VENV, Ports
from jobs.spec import load_pipelines
from jobs.spec import settings as jobs_settings


@dataclass(frozen=True)
class Service:
    """One process to run: its command, where it is for a person, and its check, which gives "" when all is well.

    `variables` are those of its environment that are its own.
    """

    name: str
    command: tuple[str | Path, ...]
    place: str
    check: Callable[[], str]
    variables: Mapping[str, str] = field(default_factory=dict)


def stores(ports: Ports) -> list[Service]:
    """Return the services that need nobody: Redis, MLflow, the lookup."""
    lookup = ports.url("lookup")
    return [
        Service("redis", redis_command(ports), ports.url("redis"), partial(redis_well, ports.redis)),
        Service(
            "mlflow", mlflow_command(ports), ports.url("mlflow"), partial(http_well, ports.url("mlflow") + "/health")
        ),
        Service(
            "lookup", (VENV / "python", "-m", "serving"), lookup + "/docs", partial(http_well, lookup + "/healthz")
        ),
    ]


def airflow(ports: Ports) -> list[Service]:
    """Return Airflow's three processes; the API server answers for all of them."""
    program, url = VENV / "airflow", ports.url("airflow")
    api = ("api-server", "--host", LOOPBACK, "--port", str(ports.airflow), "--workers", "1")
    return [
        Service("airflow-api-server", (program, *api), url, partial(airflow_well, url, "metadatabase")),
        Service(
            "airflow-scheduler",
            (program, "scheduler", "--skip-serve-logs"),
            "",
            partial(airflow_well, url, "scheduler"),
        ),
        Service("airflow-dag-processor", (program, "dag-processor"), "", partial(airflow_well, url, "dag_processor")),
    ]


def streams(*options: str) -> list[Service]:
    """Return a stream for each pipeline that declares one; it waits by itself for what it needs.

    `options` are those of `scoreline stream start`.
    """
    found, own = load_pipelines(jobs_settings().pipelines), {"SPARK_CONF_DIR": str(SETUP / "conf/long")}
    return [
        Service(stream_name(name), (VENV / "scoreline", "stream", "start", name, *options), "", str, own)
        for name, pipeline in found.items()
        if pipeline.stream
    ]


def stream_name(pipeline: str) -> str:
    """Return how the service of a pipeline's stream is called."""
    return f"stream-{pipeline}"


def redis_command(ports: Ports) -> tuple[str | Path, ...]:
    """Return Redis's command: nothing is ever evicted, and a killed one loses a second of writes at most."""
    where = ("--port", str(ports.redis), "--bind", LOOPBACK, "--dir", VAR / "redis")
    return (SETUP / "bin/redis-server", *where, "--maxmemory-policy", "noeviction", "--save", "", "--appendonly", "yes")


def mlflow_command(ports: Ports) -> tuple[str | Path, ...]:
    """Return MLflow's command: SQLite and a folder, which jobs also reach without the server; one worker."""
    folder = VAR / "mlflow"
    artefacts = ("--no-serve-artifacts", "--default-artifact-root", (folder / "artifacts").as_uri())
    stores = ("--backend-store-uri", f"sqlite:///{folder}/mlflow.db", *artefacts)
    return (VENV / "mlflow", "server", *stores, "--host", LOOPBACK, "--port", str(ports.mlflow), "--workers", "1")


def redis_well(port: int) -> str:
    """Ask Redis for a PONG."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            answer = connection.recv(64)
    except OSError as error:
        return str(error)
    return "" if answer.startswith(b"+PONG") else f"answers {answer!r}"


def http_well(url: str) -> str:
    """Ask a health page."""
    try:
        status = httpx.get(url, timeout=2, trust_env=False).status_code
    except httpx.HTTPError as error:
        return f"{url}: {error}"
    return "" if status == httpx.codes.OK else f"{url} answers {status}"


def airflow_well(url: str, part: str) -> str:
    """Ask Airflow's API server about one of its parts."""
    page = f"{url}/api/v2/monitor/health"
    try:
        answer = httpx.get(page, timeout=5, trust_env=False).json()
    except (httpx.HTTPError, ValueError) as error:
        return f"{page}: {error}"
    status = (answer.get(part) or {}).get("status")
    return "" if status == "healthy" else f"{page} says {part}: {status}"
