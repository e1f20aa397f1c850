"""What the micro-batches of a pipeline last said of themselves, for whoever watches them without Spark."""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import field
from typing import Literal

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from serving.errors import StreamUnreadable
from serving.head import Count, Microseconds

SILENCE = 30_000_000  # microseconds without a word, after which nobody is there any more
BOUNDS_S = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)


@dataclass(frozen=True)
class Freshness:
    """A histogram of seconds from an event's arrival until its score could be read, since the stream started.

    `counts` has one for each of `BOUNDS_S`, of what took up to so long, and one of what took longer.
    """

    counts: tuple[int, ...] = (0,) * (len(BOUNDS_S) + 1)
    seconds: float = 0.0

    def with_all(self, delays: Iterable[float]) -> "Freshness":
        """Return the histogram with some more."""
        counts, total = list(self.counts), self.seconds
        for delay in delays:
            counts[bisect_left(BOUNDS_S, delay)] += 1
            total += delay
        return Freshness(tuple(counts), total)

    def quantile(self, share: float) -> float | None:
        """Return the bound that a share of them kept; None where there are none, infinity beyond the last bound."""
        wanted, seen = share * sum(self.counts), 0
        for bound, many in zip((*BOUNDS_S, float("inf")), self.counts, strict=True):
            seen += many
            if many and seen >= wanted:
                return bound
        return None


@dataclass(frozen=True, kw_only=True)
class StreamRecord:
    """One stream: since when it runs, and what it had done when it last said so.

    `version` is that of the events up to which it has read; `keys` were scored and `quarantined` rows of features broke
    a rule, since its start. `behind` appends to the events are not read, the oldest of them since `behind_since`.
    `progressed_at` is when a micro-batch last ended, or when it last had read all that there was. `waits_for` says in
    words what it waits for, and `process` which one it is: "number on host". Where it has a topic, `loaded` of its
    messages became events since its start, and `rejected` did not. `fault` says why it ended, where that was not by a
    stop, and `exit_code` whether a restart can help: not where it is 3.
    """

    format: Literal[1] = 1
    state: Literal["running", "stopped"]
    query_id: str
    started_at: Microseconds
    told_at: Microseconds
    batch: int = -1
    version: int = -1
    keys: Count = 0
    quarantined: Count = 0
    loaded: Count = 0
    rejected: Count = 0
    behind: Count = 0
    behind_since: Microseconds | None = None
    progressed_at: Microseconds = 0
    waits_for: str = ""
    process: str = ""
    fault: str = ""
    exit_code: Count = 0
    freshness: Freshness = field(default_factory=Freshness)

    def is_alive(self, now: int) -> bool:
        """Return whether it runs, seen from `now` (microseconds): it says so every second or so."""
        return self.state == "running" and now - self.told_at < SILENCE

    def lag_seconds(self, now: int) -> float:
        """Return for how long the oldest append has waited to be read, seen from `now` (microseconds)."""
        return 0.0 if self.behind_since is None else (now - self.behind_since) / 1e6

    def to_json(self) -> bytes:
        """Return the record as Redis holds it."""
        return RECORD.dump_json(self)


RECORD = TypeAdapter(StreamRecord)


def parse_stream(raw: bytes) -> StreamRecord:
    """Return the record, or raise `StreamUnreadable` where this version cannot read it."""
    try:
        return RECORD.validate_json(raw)
    except ValidationError as fault:
        raise StreamUnreadable(
            f"a stream's record that this version cannot read: restart the stream ({fault})"
        ) from fault
