"""Days at a cluster over TLS, by its users: scores go live and back, are lost and come back; the service tells them."""

import os
import subprocess
import sys
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from jobs.publication.publish import publish
from jobs.publication.verify import verify
from serving.answers import Score
from serving.client import Client
from serving.errors import ServiceError
from serving.store import Store
from tests.conftest import ROOT
from tests.jobs.populations import DAY, NAME, numbered, put
from tests.project import Project
from tests.serving.certificates import certificates_in
from tests.serving.conftest import service_at
from tests.serving.test_sources import regressions
from tests.serving.topologies import Cluster, Site

ROWS = 3000
NEXT = DAY + timedelta(days=1)


def scoreline(project: Project, url: str, *command: str) -> str:
    """Run a command of operators, and return the last line that it writes."""
    done = subprocess.run(
        [sys.executable, "-m", "jobs", *command, NAME],
        env={**os.environ, "SCORELINE_LAKE": project.settings.lake, "SCORELINE_REDIS_URL": url},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def told(client: Client) -> tuple[int, bool]:
    """Return the day of June 1998 that all keys are as of, and whether each has the score that it had that day."""
    answers = [
        each for each in client.scores(NAME, [f"k{number}" for number in range(ROWS)]) if isinstance(each, Score)
    ]
    (day,) = {each.as_of.day for each in answers}
    divisor = 50_000 if day == NEXT.day + 1 else 100_000
    right = [np.float32(each.score) == np.float32(number / divisor) for number, each in enumerate(answers)]
    return day, right == [True] * ROWS


def test_scores_go_live_and_back_and_are_lost_and_come_back(project: Project, tmp_path: Path) -> None:
    with ExitStack() as servers:
        site = Site(tmp_path, servers, certificates_in(tmp_path / "tls"))
        cluster = Cluster(site, site.cluster())
        url = cluster.url("publisher")
        days = [put(project, DAY, numbered(project, ROWS)), put(project, NEXT, numbered(project, ROWS, "id / 50000"))]
        service = servers.enter_context(service_at(cluster.url("reader")))
        client, store = servers.enter_context(Client(service)), servers.enter_context(Store(url))

        for run in days:
            assert publish(run, url) == "live"
            assert told(client) == (run.as_of.day, True)
        assert scoreline(project, url, "rollback").endswith("as of 1998-06-02 is live again, epoch 2")
        assert told(client) == (2, True)

        for node in cluster.nodes:
            node.raw.flushall()
        with pytest.raises(ServiceError) as lost:
            client.score(NAME, "k1")
        assert lost.value.code == "lost-head"
        assert scoreline(project, url, "republish") == f"{NAME}: live: the scores as of 1998-06-02"
        assert told(client) == (2, True)
        head = store.head(NAME)
        assert head is not None
        assert verify(days[0], url, head).endswith("blocks are as the table says")
        assert regressions(service) == 0
