"""What a micro-batch's features cost, measured on the sample."""

import time
from dataclasses import dataclass

import pyarrow as pa

from jobs.check.findings import Finding, faulty, fine
from jobs.check.worlds import Probe, World
from jobs.sqlfile import SqlFile

MOST_SECONDS = 5.0


@dataclass(frozen=True)
class Cost:
    """The longest that a micro-batch's features may take, in seconds, on the machine that checks."""

    most: float = MOST_SECONDS

    def of(self, probe: Probe, sql: SqlFile, world: World, spine: pa.Table) -> Finding:
        """Judge what the features of a spine take, of two tries the faster: the first one compiles."""
        taken = min(_seconds(probe, sql, world, spine) for _ in range(2))
        what = f"the features of {len(spine)} keys with {len(world.events)} events take {taken:.1f} s"
        if taken <= self.most:
            return fine("stream", f"{what}, at most {self.most:g} are good")
        return faulty(
            "stream",
            f"{what}, and a micro-batch may take {self.most:g}: make features.sql cheaper, or declare no stream",
        )


def _seconds(probe: Probe, sql: SqlFile, world: World, spine: pa.Table) -> float:
    began = time.monotonic()
    probe.features(sql, {"": world}, spine)
    return time.monotonic() - began
