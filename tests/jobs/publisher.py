"""A publisher as a process of its own, in the Spark of the tests, which kills or stops itself at a named step.

`python -m tests.jobs.publisher STEP SIGNAL FOLDER REDIS_URL DAY REASON`; it reaches the JVM as Spark's own programs do.
With a REASON it forces the publication.
"""

import os
import signal
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pyspark import SparkConf, SparkContext
from pyspark.java_gateway import launch_gateway
from pyspark.sql import SparkSession

from jobs import generation
from jobs.ledger import LIVE, VERIFIED, Ledger
from jobs.publish import DUE, Warrant, publish
from serving.keys import block_key
from serving.store import Store
from tests.project import Project

STEPS = ("reserved", "claimed", "partly written", "written", "read back", "verified", "swapped", "recorded")
BEFORE = ("before the blocks", "written", "before the swap")


def halt(step: str, how: int, patch: pytest.MonkeyPatch) -> None:
    """Let this process send itself the signal `how` at `step`."""

    def now() -> None:
        os.kill(os.getpid(), how)

    def around(owner: Any, name: str, before: Callable[..., None] | None, after: Callable[..., None] | None) -> None:
        real = getattr(owner, name)

        def with_halt(*given: Any, **named: Any) -> Any:
            if before:
                before()
            result = real(*given, **named)
            if after:
                after(*given)
            return result

        patch.setattr(owner, name, with_halt)

    def lose_half(_: Any, built: generation.Generation, *__: Any) -> None:
        with Store(built.redis_url) as store:
            store.unlink(block_key(built.pipeline, built.token, bucket) for bucket in range(0, built.layout.buckets, 2))
        now()

    def when(wanted: str) -> Callable[..., None]:
        return lambda _, events: now() if [event for event, _ in events] == [wanted] else None

    places: dict[str, tuple[Any, str, Any, Any]] = {
        "reserved": (Ledger, "reserve", None, lambda *_: now()),
        "claimed": (Store, "claim", None, lambda *_: now()),
        "before the blocks": (generation, "write", now, None),
        "partly written": (generation, "write", None, lose_half),
        "written": (generation, "write", None, lambda *_: now()),
        "read back": (generation, "read_back", None, lambda *_: now()),
        "verified": (Ledger, "write", None, when(VERIFIED)),
        "before the swap": (Store, "swap", now, None),
        "before the replacement": (Store, "replace_claimed", now, None),
        "swapped": (Store, "swap", None, lambda *_: now()),
        "recorded": (Ledger, "write", None, when(LIVE)),
    }
    around(*places[step])


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
            halt(step, signal.Signals[how], patch)
        print(publish(run, redis_url, Warrant("forced", reason) if reason else DUE))  # noqa: T201  reason: it is what the program answers


if __name__ == "__main__":
    main()
