"""Beside Feast, from its package: its own materialization to Redis, and its own Python feature server."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet
from redis import Redis

from infra.bench import feast_environment
from jobs.publication.publish import publish as publish_run
from tests.benchmarks.closed_loop import Target, alternating, single
from tests.benchmarks.population import Population, key_of, score_of
from tests.benchmarks.result import Result, compared
from tests.benchmarks.stage import Failed, Stage, redis_url
from tests.conftest import free_port

DECLARED = Path(__file__).parent / "peers/feast"
WARMING_KEYS = 100


def publish(stage: Stage) -> Iterator[Result]:
    """Keys a second of warm publications from the table to the swap, against Feast's materialization of the same."""
    rows = stage.scale.feast_rows
    population = Population(stage.folder / f"population-{rows}", rows)
    (run, _), ours, theirs = population.scores(stage.spark), stage.redis("redis-load"), stage.redis("redis-feast")
    site = Site(stage, theirs)
    rates, others = [], []
    publish_run(run, redis_url(ours))
    with Redis(port=theirs) as other:
        for turn in range(stage.scale.cold):
            other.flushall()
            others.append(rows / site.materialize())
            start = time.monotonic()
            publish_run(run, redis_url(ours))
            rates.append(rows / (time.monotonic() - start))
            stage.say(f"round {turn + 1}: Feast {others[-1]:,.0f}, ours {rates[-1]:,.0f} keys/s")
    yield compared("publish_vs_feast", "keys/s", rates, f"Feast's materialize, the same {rows:,} keys", others)


def lookup(stage: Stage) -> Iterator[Result]:
    """Single keys, against Feast's feature server, one worker, over fewer keys."""
    site = Site(stage, stage.redis("redis-feast"))
    site.materialize()
    theirs = Target(site.serve(), "/get-online-features", stage.scale.feast_rows, kind="feast")
    peer = f"Feast's feature server, {stage.scale.feast_rows:,} keys"
    yield compared("lookup_vs_feast", "lookups/s", *alternating(stage, single(stage), theirs, peer))


class Site:
    """A feature repository over the Redis of that port, in a folder of its own, with its scores as a Parquet file."""

    def __init__(self, stage: Stage, redis: int) -> None:
        self.stage, self.folder = stage, stage.folder / "feature-repository"
        self.programs = feast_environment.programs(stage.folder)
        # Its server leaves a folder in the home of whoever starts it.
        self.variables = {"REDIS": f"127.0.0.1:{redis}", "HOME": str(self.folder)}
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(DECLARED, self.folder)
        parquet.write_table(offline(stage.scale.feast_rows), self.folder / "scores.parquet")
        self._run("feast", "apply")

    def materialize(self) -> float:
        """Let Feast bring all scores into Redis, and return the seconds that it took."""
        return float(self._run("python", "materialize.py").splitlines()[-1])

    def serve(self) -> str:
        """Start Feast's server, one worker, which by default ends after 1,000 requests and starts anew."""
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        how = ["--workers", "1", "--no-access-log", "--max-requests", "0", "--host", "127.0.0.1", "--port", str(port)]
        command = [str(self.programs / "feast"), "--chdir", str(self.folder), "serve", *how]
        self.stage.web("feast", command, f"{url}/health", **self.variables)
        return url

    def _run(self, program: str, *arguments: str) -> str:
        command, variables = [str(self.programs / program), *arguments], {**os.environ, **self.variables}
        done = subprocess.run(command, cwd=self.folder, env=variables, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failed(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
        return done.stdout


def offline(rows: int) -> pa.Table:
    """Return what Feast reads: all scores an hour ago, and a few the day before, for its warming up."""
    keys = [key_of(number) for number in range(rows)]
    now = datetime.now(UTC)
    times = [now - timedelta(hours=1)] * rows
    few = keys[:WARMING_KEYS]
    scores = np.array([score_of(key) for key in keys + few], dtype=np.float32)
    stamps = pa.array(times + [now - timedelta(days=1)] * len(few), pa.timestamp("us", "UTC"))
    return pa.table({"customer_id": keys + few, "score": scores, "event_timestamp": stamps})
