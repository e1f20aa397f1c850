"""How what takes long to append gets in beside live events: it asks for way, and they wait a moment."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from jobs.stream.follow import follow

WAY = "way"  # as an app's version in the table's log: odd while somebody asks for it
WAIT_SECONDS = 20.0
LOOK_SECONDS = 0.05


@contextmanager
def way_through(path: str) -> Iterator[None]:
    """Have live appends to the table at `path` wait while the block lasts."""
    _say(path, odd=1)
    try:
        yield
    finally:
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
    before = table.transaction_version(WAY) or 0
    nothing = pa.schema(table.schema().to_arrow()).empty_table()
    mark = CommitProperties(app_transactions=[Transaction(WAY, before + 1 + (before + 1 + odd) % 2)])
    write_deltalake(table, nothing, mode="append", commit_properties=mark)
