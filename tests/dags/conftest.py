"""A real Airflow for these tests: a home with a database, in a folder that is removed afterwards."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOME = Path(tempfile.mkdtemp(prefix="scoreline airflow "))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)  # here: pytest may collect these tests and run none
ENVIRONMENT = {
    "AIRFLOW_HOME": str(HOME),
    "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME}/airflow.db",
    "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(HOME / "logs"),
    "AIRFLOW_CONN_SPARK_DEFAULT": '{"conn_type": "spark", "host": "local[1]"}',
    "PYTHONPATH": str(ROOT),
}
# Airflow reads its environment when it is imported, which the test modules do when they are collected.
patch = pytest.MonkeyPatch()


def set_environment() -> None:
    for key, value in ENVIRONMENT.items():
        patch.setenv(key, value)
    patch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)  # where spark-submit is


set_environment()


def pytest_collection_finish() -> None:
    """Other tests start services of their own, with settings of their own."""
    patch.undo()


@pytest.fixture(scope="session")
def migrated() -> Path:
    """The home of an Airflow whose database is migrated; without a scheduler."""
    command = [sys.executable, "-m", "airflow", "db", "migrate"]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **ENVIRONMENT})
    return HOME


@pytest.fixture(scope="module", autouse=True)
def airflow_home(migrated: Path) -> Iterator[Path]:
    """That home, named in the environment while a module's tests run."""
    set_environment()
    yield migrated
    patch.undo()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project folder of its own, with the pipeline that we ship, which the settings name."""
    from jobs.spec import settings

    shutil.copytree(ROOT / "dags" / "pipelines", tmp_path / "dags" / "pipelines")
    monkeypatch.setenv("SCORELINE_PROJECT", str(tmp_path))
    settings.cache_clear()
    yield tmp_path
    settings.cache_clear()
