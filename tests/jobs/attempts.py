"""Publications without Spark, each in a thread that goes on to its next gate only when it is told to."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from threading import Event, Thread
from typing import Any, cast

from pyspark.sql import Row

from jobs.errors import Overtaken
from jobs.publication.ledger import GRACE
from jobs.publication.partition import Partition
from jobs.publication.publish import Warrant, _Publication
from jobs.quality import Measure
from jobs.run import Run
from serving.blocks import tally
from serving.clock import Clock
from serving.head import Head
from serving.layout import Layout
from serving.store import Outcome, Store
from tests.serving.publishing import arrays, write

ORIGIN = Row(model_name="propensity", model_version="7", model_digest="sha256:7", events_version=3)


@dataclass(frozen=True)
class Leaping(Clock):
    """A clock that is beyond the grace each time that it is looked at."""

    seen: list[datetime] = field(default_factory=lambda: [datetime.fromisoformat("1998-06-10T00:00:00+00:00")])

    def now(self) -> datetime:
        self.seen[0] += GRACE + timedelta(seconds=1)
        return self.seen[0]


class Quiet(Run):
    """A run that measures nothing, which takes Spark."""

    def record(self, step: str, measures: list[Measure]) -> None: ...


class Killed(BaseException):
    """The end of a process, which no handler of a fault sees."""


class Halting(Store):
    """The store of an attempt, with gates before the claim and around the swap."""

    def __init__(self, url: str, attempt: "Attempt") -> None:
        super().__init__(url)
        self.attempt = attempt

    def claim(self, pipeline: str, token: int) -> bool:
        self.attempt.token = token
        self.attempt.halt("before the claim")
        return super().claim(pipeline, token)

    def _settled(self, head: Head, *script: str | bytes | int) -> Outcome:
        self.attempt.halt("before the swap")
        outcome = super()._settled(head, *script)
        if outcome == "live":
            self.attempt.halt("after the swap")
        return outcome


@dataclass(eq=False)
class Attempt:
    """A publication of some scores; `at` is the gate that it waits at, None after its end, and `said` how that was."""

    run: Run
    url: str
    scores: Mapping[str, float]
    warrant: Warrant
    at: str | None = None
    said: str = ""
    token: int = 0
    fault: BaseException | None = None
    killed: bool = False

    def __post_init__(self) -> None:
        self._waits, self._may_go = Event(), Event()
        self._thread = Thread(target=self._work, daemon=True)
        self._thread.start()
        self._await()

    def go_on(self) -> None:
        """Let it go on to its next gate, or to its end."""
        self._waits.clear()
        self._may_go.set()
        self._await()

    def kill(self) -> None:
        """Let it end where it waits."""
        if self.at is not None:
            self.killed = True
            self.go_on()

    def halt(self, gate: str) -> None:
        """Wait at a gate, in the attempt's own thread."""
        self.at = gate
        self._may_go.clear()
        self._waits.set()
        self._may_go.wait()
        if self.killed:
            raise Killed

    def _await(self) -> None:
        self._waits.wait()
        if self.fault:
            raise self.fault

    def _work(self) -> None:
        rows = tally(*arrays(Layout.fitting(1, 1), self.scores))
        # What Spark would hold is this attempt, which `build` gets with the rest.
        partition = Partition(cast("Any", self), ORIGIN, rows, 0)
        try:
            with Halting(self.url, self) as store:
                self.said = _Publication(self.run, store, partition, self.warrant).verdict()
        except Overtaken:
            self.said = "overtaken"
        except Killed:
            self.said = "killed"
        except BaseException as fault:  # noqa: BLE001  reason: it is raised again, in the thread of the test
            self.fault = fault
        self.at = None
        self._waits.set()


def build(partition: Partition, draft: Head, _: str) -> Head:
    """Do what `jobs.publication.publish.build` does, with arrays."""
    attempt = cast("Attempt", partition.scores)
    attempt.halt("before the blocks")
    head = replace(draft, checksum=tally(*arrays(draft.layout, attempt.scores)).checksum)
    with Store(attempt.url) as store:
        write(store, head, attempt.scores)
    return head
