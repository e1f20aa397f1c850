"""Scores of a few days, a Redis, and publishers that are processes of their own, to be killed and stopped."""

import os
import subprocess
import sys
import time
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from signal import SIGCONT, SIGKILL
from typing import Any
from urllib.parse import urlsplit

import psutil
from deltalake import DeltaTable

from jobs.publication.ledger import VERIFIED, Ledger
from jobs.publication.verify import verify
from jobs.run import Run
from serving.clock import Clock
from serving.head import Head
from serving.refusals import RefusalStore
from serving.store import Store
from tests.conftest import ROOT
from tests.jobs.populations import NAME
from tests.jobs.sites import Site
from tests.project import Project


@dataclass(frozen=True)
class Stage:
    """A lake with scores, and a Redis."""

    project: Project
    url: str

    @property
    def port(self) -> int:
        """The port of the Redis."""
        return int(urlsplit(self.url).port or 0)

    @contextmanager
    def site(self) -> Iterator[Site]:
        """Give the stage's Redis and ledger."""
        with Store(self.url) as store:
            yield Site(self.project.pipeline(), store, Ledger.of(self.project.settings, NAME, Clock()))

    def kill(self, run: Run, step: str) -> None:
        """Let a publisher kill itself at a step."""
        process = self.start(run, step, "SIGKILL")
        assert (process.communicate()[0], process.returncode) == ("", -SIGKILL)

    def start(self, run: Run, step: str = "", how: str = "", reason: str = "") -> subprocess.Popen[str]:
        """Start a publisher that works in the tests' JVM, and sends itself a signal at a step, if one is given."""
        java: Any = self.project.spark.sparkContext._gateway
        port, secret = java.java_parameters.port, java.java_parameters.auth_token
        variables = {"PYSPARK_GATEWAY_PORT": str(port), "PYSPARK_GATEWAY_SECRET": secret}
        arguments = (step, how, str(self.project.folder), self.url, str(run.day), reason)
        return subprocess.Popen(
            [sys.executable, "-m", "tests.jobs.publisher", *arguments],
            env={**os.environ, **variables},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @contextmanager
    def stopped(self, run: Run, step: str, reason: str = "") -> Iterator["Zombie"]:
        """Give a publisher that has stopped itself at a step; what is left of it ends with the block."""
        process = self.start(run, step, "SIGSTOP", reason)
        try:
            zombie = Zombie(process)
            zombie.await_stop()
            yield zombie
        finally:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()

    def record(self) -> bytes | None:
        """Return the head record."""
        with self.site() as site:
            return site.store.record(NAME)

    def sound(self, run: Run, lost: Container[int] = ()) -> Head:
        """Return the live head of a run's scores, if all that belongs to it is there, and nothing that nobody wants.

        `lost` are the generations that should be there, and went with the Redis before.
        """
        with self.site() as site:
            head, history = site.store.head(NAME), site.ledger.read()
            assert head is not None
            assert history.last == head
            kept = [one.token for one in history.generations if one.turns and not one.removed]
            assert site.there() == [token for token in kept if token not in lost]
            assert RefusalStore(site.store, NAME).read() == {}
            assert head.to_json().decode() in self._manifests(site)
        verify(run, self.url, head)
        return head

    @staticmethod
    def _manifests(site: Site) -> set[str]:
        rows = DeltaTable(site.ledger.path).to_pyarrow_table().to_pylist()
        return {row["manifest"] for row in rows if row["event"] == VERIFIED}


@dataclass(frozen=True)
class Zombie:
    """A publisher that was stopped."""

    process: subprocess.Popen[str]

    def await_stop(self) -> None:
        """Wait until it has stopped itself."""
        while psutil.Process(self.process.pid).status() != psutil.STATUS_STOPPED:
            assert self.process.poll() is None, self.process.communicate()[0]
            time.sleep(0.05)

    def go_on(self) -> str:
        """Let it go on to its end, and return what it wrote."""
        self.process.send_signal(SIGCONT)
        return self.process.communicate()[0]
