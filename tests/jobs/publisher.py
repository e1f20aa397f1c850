"""A publisher as a process of its own, in the Spark of the tests, which kills or stops itself at a named step.

`python -m tests.jobs.publisher STEP SIGNAL FOLDER REDIS_URL DAY REASON`; it reaches the JVM as Spark's own programs do.
With a REASON it forces the publication.
"""

import signal
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pyspark import SparkConf, SparkContext
from pyspark.java_gateway import launch_gateway
from pyspark.sql import SparkSession

from jobs.publication import generation
from jobs.publication.ledger import BREACH, LIVE, VERIFIED, Ledger
from jobs.publication.publish import DUE, Warrant, publish
from serving.keys import block_key
from serving.store import Store
from tests.jobs.halting import Halt, Step, after, before, halting, told
from tests.project import Project

STEPS = ("reserved", "claimed", "partly written", "written", "read back", "verified", "swapped", "recorded")
BEFORE = ("before the blocks", "written", "before the swap")


def halt_at(step: str, now: Step) -> Halt:
    """Return what halts this process at a named step."""

    def lose_half(_: Any, built: generation.Generation, *__: Any) -> None:
        with Store(built.redis_url) as store:
            store.unlink(block_key(built.pipeline, built.token, bucket) for bucket in range(0, built.layout.buckets, 2))
        now()

    return {
        "reserved": after(Ledger, "reserve", now),
        "claimed": after(Store, "claim", now),
        "refused": told(BREACH, now),
        "before the blocks": before(generation, "write", now),
        "partly written": after(generation, "write", lose_half),
        "written": after(generation, "write", now),
        "read back": after(generation, "read_back", now),
        "verified": told(VERIFIED, now),
        "before the swap": before(Store, "swap", now),
        "before the replacement": before(Store, "replace_claimed", now),
        "swapped": after(Store, "swap", now),
        "recorded": told(LIVE, now),
    }[step]


def session() -> SparkSession:
    """Return a session in the JVM that PYSPARK_GATEWAY_PORT names."""
    gateway: Any = launch_gateway()  # type: ignore[no-untyped-call]  # reason: py4j has no types
    running = gateway.jvm.org.apache.spark.SparkContext.getOrCreate()
    context = gateway.jvm.org.apache.spark.api.java.JavaSparkContext(running)
    return SparkSession(SparkContext(gateway=gateway, jsc=context, conf=SparkConf(_jconf=context.getConf())))


def main() -> None:
    """Publish a day, up to the step."""
    step, how, folder, redis_url, day, reason = sys.argv[1:]
    run = Project(Path(folder), session()).run(date.fromisoformat(day), "publisher")
    with pytest.MonkeyPatch.context() as patch:
        if step:
            halt_at(step, halting(signal.Signals[how]))(patch)
        print(publish(run, redis_url, Warrant("forced", reason) if reason else DUE))  # noqa: T201  reason: it is what the program answers


if __name__ == "__main__":
    main()
