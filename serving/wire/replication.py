"""Whether replicas have what was written, and masters are still the same: what a failed one alone had is gone."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic, sleep

from serving.errors import StoreUnavailable
from serving.wire.connection import PATIENCE_SECONDS, Connection
from serving.wire.target import address

POLL_SECONDS = 0.05  # replicas say once a second how far they are
WRITTEN = re.compile(rb"master_replid:(\w+).*master_repl_offset:(\d+)", re.DOTALL)
REPLICATED = re.compile(rb"state=online,offset=(\d+)")


@dataclass(frozen=True)
class Progress:
    """How far a master is in its history of writes, and how far each of its replicas."""

    written: int
    replicated: tuple[int, ...]


Masters = Mapping[bytes, Progress]  # by their histories: one that restarts or takes over begins another


def masters_of(connection: Connection) -> Masters:
    """Return the masters there are, without those that do not say."""
    found = {}
    for told in connection.ask_all(("INFO", "replication")):
        written = WRITTEN.search(told) if isinstance(told, bytes) else None
        if written is not None:
            found[written[1]] = Progress(int(written[2]), tuple(map(int, REPLICATED.findall(told))))
    return found


def await_replicas(connection: Connection, before: Masters | None = None) -> Masters:
    """Return the masters when a replica of each has all that was written there; at once where there are no replicas.

    A master that has fewer replicas than `before` is waited for as well: it may be about to go, and one of them to take
    over without what is written now. One that goes is not waited for. Raises `StoreUnavailable` after ten seconds.
    """
    deadline = monotonic() + PATIENCE_SECONDS
    wanted = now = masters_of(connection)
    while any(_lags(now[history], wanted[history], (before or now).get(history)) for history in now.keys() & wanted):
        if monotonic() > deadline:
            raise StoreUnavailable(
                f"Redis at {address(connection.url)} has replicas that went away or stay behind: see `INFO "
                "replication` of its masters, mend the replicas, and run the task again"
            )
        sleep(POLL_SECONDS)
        now = masters_of(connection)
    return now


def _lags(now: Progress, wanted: Progress, before: Progress | None) -> bool:
    missing = before is not None and len(now.replicated) < len(before.replicated)
    return missing or max(now.replicated, default=wanted.written) < wanted.written
