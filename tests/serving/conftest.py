"""A store over the module's Redis, servers of a test's own, and the lookup service as a real process."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import IO

import pytest
from hypothesis import settings

from serving.client import Client
from serving.store import Store
from tests.conftest import ROOT, await_port, free_port, redis_at, stop
from tests.serving.topologies import Cluster, Site

# What a property test asserts is never how fast this machine is just now.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@contextmanager
def service_at(redis_url: str, clock: str = "real", log: IO[bytes] | None = None, **settings: str) -> Iterator[str]:
    """Run the lookup service on a free port until the block ends; gives its URL.

    `settings` are others of its SCORELINE_... variables, by name in lower case. All that it logs goes to `log`; without
    one its faults alone are shown.
    """
    with process_at(redis_url, clock, log, **settings) as (url, _):
        yield url


@contextmanager
def process_at(
    redis_url: str, clock: str = "real", log: IO[bytes] | None = None, **settings: str
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run the lookup service as `service_at` does; gives its URL and its process, which may end before the block."""
    port = free_port()
    told = {"redis_url": redis_url, "port": str(port), "clock": clock, **settings}
    environment = {**os.environ, **{f"SCORELINE_{name.upper()}": value for name, value in told.items()}}
    command = [sys.executable, "-m", "serving"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log or subprocess.DEVNULL, stderr=log)
    try:
        await_port(port)
        yield f"http://127.0.0.1:{port}", process
    finally:
        stop(process)


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis for each module: what runs before it in the same process leaves no pipeline of the same name."""
    port = free_port()
    with redis_at(port, tmp_path_factory.mktemp("redis"), "--maxmemory-policy", "noeviction"):
        yield f"redis://127.0.0.1:{port}/0"


@pytest.fixture(scope="module")
def store(redis_url: str) -> Iterator[Store]:
    with Store(redis_url) as opened:
        yield opened


@pytest.fixture(scope="session")
def session_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ExitStack() as stack:
        site = Site(tmp_path_factory.mktemp("cluster"), stack)
        yield Cluster(site, site.cluster())


@pytest.fixture(scope="module")
def cluster(session_cluster: Cluster) -> Cluster:
    """A cluster of three masters with the users of infra/redis; empty at the start of each module."""
    for node in session_cluster.nodes:
        node.raw.flushall()
    return session_cluster


@pytest.fixture(scope="module", params=["server", "cluster"])
def any_place(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """What gives the URL for a user: of one server, which has no users, and of a cluster."""
    named = {"server": "redis_url", "cluster": "cluster"}[request.param]
    place: str | Cluster = request.getfixturevalue(named)
    return place.url if isinstance(place, Cluster) else lambda _: place


@pytest.fixture(scope="module")
def any_store(any_place: Callable[[str], str]) -> Iterator[Store]:
    """A store over one server, and one over a cluster, where it signs in as the publisher."""
    with Store(any_place("publisher")) as opened:
        yield opened


@pytest.fixture(scope="module")
def service_url(redis_url: str) -> Iterator[str]:
    with service_at(redis_url, "real") as url:
        yield url


@pytest.fixture(scope="module")
def client(service_url: str) -> Iterator[Client]:
    with Client(service_url) as opened:
        yield opened


@pytest.fixture
def servers() -> Iterator[ExitStack]:
    """What a test starts itself; stopped after it, the last one first."""
    with ExitStack() as stack:
        yield stack
