"""Whether replicas have what was written: what a master alone has, its failure takes away."""

import re
from collections.abc import Iterator
from time import monotonic, sleep

from serving.connection import PATIENCE_SECONDS, Connection
from serving.errors import StoreUnavailable
from serving.target import address

POLL_SECONDS = 0.05  # replicas say once a second how far they are
WRITTEN = re.compile(rb"master_replid:(\w+).*master_repl_offset:(\d+)", re.DOTALL)
REPLICATED = re.compile(rb"state=online,offset=(\d+)")


def await_replicas(connection: Connection) -> None:
    """Return when a replica of each master has all that was written before; at once where there are no replicas.

    Raises `StoreUnavailable` where they stay behind. A master that fails meanwhile is not waited for.
    """
    deadline = monotonic() + PATIENCE_SECONDS
    wanted = {history: written for history, written, _ in _progress(connection)}
    while any(replicated < wanted.get(history, 0) for history, _, replicated in _progress(connection)):
        if monotonic() > deadline:
            raise StoreUnavailable(
                f"Redis at {address(connection.url)} has replicas that stay behind: see `INFO replication` of its "
                "masters, mend or remove the replicas, and run the task again"
            )
        sleep(POLL_SECONDS)


def _progress(connection: Connection) -> Iterator[tuple[bytes, int, int]]:
    """Yield of each master with replicas: its history's name, how far it is, and how far its best replica is."""
    for told in connection.ask_all(("INFO", "replication")):
        written = WRITTEN.search(told) if isinstance(told, bytes) else None
        replicated = [int(offset) for offset in REPLICATED.findall(told)] if written else []
        if written and replicated:
            yield written[1], int(written[2]), max(replicated)
