"""What is noted of every request: a line of the log and numbers for the metrics, made in bulk."""

import secrets
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import count
from typing import NamedTuple

from serving.web.logs import BulkWriter

METHODS = frozenset(("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"))
SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
NO_ROUTE = "none"
AT_ONCE = 256  # requests noted together: about a millisecond's work


class Ended(NamedTuple):
    """Requests that have got their answers together; of what callers made up, only ids of letters without escapes."""

    when: float  # seconds since 1970 UTC
    method: str
    route: str
    status: int
    keys: int  # that each asked for
    ids: Sequence[str]
    seconds: Sequence[float]  # that each took


def known(method: str) -> str:
    """Return a method, or "other": a caller may invent some, and each would be a time series of its own."""
    return method if method in METHODS else "other"


class LookedUp:
    """A number of keys."""

    __slots__ = ("keys",)

    def __init__(self) -> None:
        self.keys = 0


class Timings:
    """The requests of one route by the seconds that they took; `counts` has one more than there are bounds."""

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.total = 0.0


class Journal:
    """The requests of one service process; labels take only names of routes and of live pipelines."""

    def __init__(self, writer: BulkWriter) -> None:
        self.writer = writer
        self.requests: Counter[tuple[str, str, int]] = Counter()  # by method, route and status
        self.timings: defaultdict[str, Timings] = defaultdict(Timings)
        self.lookups: dict[tuple[str, str], LookedUp] = {}  # by pipeline and source
        self._ended: list[Ended] = []
        self._waiting = 0
        self._lines: list[str] = []
        self._prefix = secrets.token_hex(6)
        self._numbers = count(1)

    def request_id(self) -> str:
        """Return an id that no other request of any process has."""
        return f"{self._prefix}-{next(self._numbers):x}"

    def note(self, ended: Ended) -> None:
        """Note requests that have their answers."""
        self._ended.append(ended)
        self._waiting += len(ended.ids)
        if self._waiting >= AT_ONCE:
            self.fold()

    def looked_up(self, pipeline: str, source: str) -> "LookedUp":
        """Return what counts the keys whose answers came from a source."""
        return self.lookups.setdefault((pipeline, source), LookedUp())

    def fold(self) -> None:
        """Count what was noted, and write it down for `flush`."""
        ended, self._ended, self._waiting = self._ended, [], 0
        for one in ended:
            self.requests[one[1:4]] += len(one.ids)
            timings = self.timings[one.route]
            timings.total += sum(one.seconds)
            counts = timings.counts
            for seconds in one.seconds:
                counts[bisect_left(SECONDS, seconds)] += 1
            self._lines += _lines(one)

    def flush(self) -> None:
        """Log what was noted; a few times a second, since the loop has to wait for the writer's thread each time."""
        self.fold()
        if self._lines:
            lines, self._lines = self._lines, []
            self.writer.write("".join(lines).encode())

    def close(self) -> None:
        """Log what was noted, and end the log."""
        self.flush()
        self.writer.close()


def _lines(ended: Ended) -> list[str]:
    """Return the lines of the log; what they have in common is written once."""
    when, method, route, status, keys, ids, seconds = ended
    before = f'{{"time":"{_second(int(when))}.{int(when * 1000) % 1000:03d}Z","request_id":"'
    middle, after = f'","method":"{method}","route":"{route}","status":{status},"ms":', f',"keys":{keys}}}\n'
    pairs = zip(ids, seconds, strict=True)
    return [f"{before}{request_id}{middle}{1000 * taken:.3f}{after}" for request_id, taken in pairs]


@lru_cache(maxsize=4)
def _second(since_1970: int) -> str:
    return datetime.fromtimestamp(since_1970, UTC).strftime("%Y-%m-%dT%H:%M:%S")
