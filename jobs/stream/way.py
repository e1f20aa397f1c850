"""How what takes long to append gets in beside live events: it asks for way, and they wait a moment."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pyarrow as pa
from deltalake import DeltaTable

from jobs.errors import Fenced
from jobs.stream.follow import Marked, commit, follow

WAY = "way"  # as an app's version in the table's log: odd while somebody asks for it
WAIT_SECONDS = 20.0
LOOK_SECONDS = 0.05


@contextmanager
def way_through(path: str) -> Iterator[None]:
    """Have live appends to the table at `path` wait while the block lasts.

    Raises:
        Fenced: others appended at the same moment, again and again, so that nobody could be asked.
    """
    _say(path, odd=1)
    try:
        yield
    finally:
        with suppress(Fenced):  # nobody waits for longer than WAIT_SECONDS
            _say(path, odd=0)


class Way:
    """The way that who appends live events makes for others: once for each who asks, who may be dead by now."""

    def __init__(self) -> None:
        self.made = 0

    def make(self, table: DeltaTable) -> None:
        """Wait while somebody asks for it, for WAIT_SECONDS at most, as far as `table` knows by now."""
        deadline = time.monotonic() + WAIT_SECONDS
        while (asked := table.transaction_version(WAY) or 0) % 2 and asked != self.made:
            if time.monotonic() > deadline:
                self.made = asked
            time.sleep(LOOK_SECONDS)
            follow(table)


def _say(path: str, odd: int) -> None:
    table = DeltaTable(path)
    nothing = pa.schema(table.schema().to_arrow()).empty_table()

    def made() -> Marked:
        following = (table.transaction_version(WAY) or 0) + 1
        return nothing, {WAY: following + (following + odd) % 2}

    commit(table, made)
