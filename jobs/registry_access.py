"""The way to MLflow: one client for each address, and its faults in our own words."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from mlflow import MlflowClient
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES, MLFLOW_HTTP_REQUEST_TIMEOUT
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from jobs.errors import ModelMissing, RegistryUnavailable

SQLITE = "sqlite:///"
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def artefacts(uri: str) -> str | None:
    """Return where artefacts go: beside a SQLite file; a server decides by itself."""
    return (_database(uri).parent / "artifacts").as_uri() if uri.startswith(SQLITE) else None


def _database(uri: str) -> Path:
    return Path(uri.removeprefix(SQLITE).split("?")[0]).absolute()


# Of a server: tasks and streams try again by themselves, and a stop waits until a try is over. MLflow's own default is
# seven retries, which are four minutes.
RETRIES, SECONDS = 2, 30


@lru_cache(maxsize=4)
def client(uri: str) -> MlflowClient:
    """Return the client of the MLflow at `uri`."""
    for variable, value in ((MLFLOW_HTTP_REQUEST_MAX_RETRIES, RETRIES), (MLFLOW_HTTP_REQUEST_TIMEOUT, SECONDS)):
        if not variable.is_set():
            variable.set(value)
    if uri.startswith(SQLITE):
        _database(uri).parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def talking(uri: str, absent: str | None = None) -> Iterator[None]:
    """Translate MLflow's errors: what is not there (`absent` says it and what to do), and everything else."""
    try:
        yield
    except MlflowException as error:
        if absent is not None and error.error_code in _ABSENT:
            raise ModelMissing(absent) from error
        raise _unavailable(uri, error.message) from error
    except (OSError, SQLAlchemyError) as error:
        raise _unavailable(uri, str(error)) from error


def _unavailable(uri: str, reason: str) -> RegistryUnavailable:
    return RegistryUnavailable(
        f"MLflow at {uri} does not answer as it should: {reason.splitlines()[0]}; "
        "check SCORELINE_MLFLOW_URI and that MLflow runs, then run the task again"
    )
