"""What is noted of every request: a line of the log and numbers for the metrics, made in bulk."""

import secrets
from bisect import bisect_left
from collections import Counter, defaultdict
from datetime import UTC, datetime
from functools import lru_cache
from itertools import count

from serving.logs import BulkWriter

METHODS = frozenset(("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"))
SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
NO_ROUTE = "none"
# The fastest way that Python has.
LINE = '{"time":"%s.%03dZ","request_id":"%s","method":"%s","route":"%s","status":%d,"ms":%.3f,"keys":%d}\n'
AT_ONCE = 256  # requests noted together: about a millisecond's work

# When it ended (seconds since 1970 UTC), id, method, route, status, seconds that it took, keys that it asked for;
# nothing that a caller made up, but for an id of letters that need no escaping.
Entry = tuple[float, str, str, str, int, float, int]


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
        self._entries: list[Entry] = []
        self._lines: list[str] = []
        self._prefix = secrets.token_hex(6)
        self._numbers = count(1)

    def request_id(self) -> str:
        """Return an id that no other request of any process has."""
        return f"{self._prefix}-{next(self._numbers):x}"

    def note(self, entry: Entry) -> None:
        """Note a request that has its answer."""
        self._entries.append(entry)
        if len(self._entries) >= AT_ONCE:
            self.fold()

    def looked_up(self, pipeline: str, source: str) -> "LookedUp":
        """Return what counts the keys whose answers came from a source."""
        return self.lookups.setdefault((pipeline, source), LookedUp())

    def fold(self) -> None:
        """Count what was noted, and write it down for `flush`."""
        entries, self._entries = self._entries, []
        if not entries:
            return
        self.requests.update([entry[2:5] for entry in entries])
        for _, _, _, route, _, seconds, _ in entries:
            timings = self.timings[route]
            timings.counts[bisect_left(SECONDS, seconds)] += 1
            timings.total += seconds
        self._lines.append("".join(map(_line, entries)))

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


def _line(entry: Entry) -> str:
    when, request_id, method, route, status, seconds, keys = entry
    return LINE % (_second(int(when)), when * 1000 % 1000, request_id, method, route, status, seconds * 1000, keys)


@lru_cache(maxsize=4)
def _second(since_1970: int) -> str:
    return datetime.fromtimestamp(since_1970, UTC).strftime("%Y-%m-%dT%H:%M:%S")
