"""How a Delta table's log is followed while others write to it."""

import time

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

TRIES = 20
PAUSE_SECONDS = 0.05


def follow(table: DeltaTable) -> None:
    """Bring `table` to its newest version.

    Two writers at the same moment may leave a version to be seen before the one below it, for a moment: that is looked
    at again.

    Raises:
        DeltaError: the log cannot be read, nor some tries later.
    """
    for _ in range(TRIES):
        try:
            table.update_incremental()
        except DeltaError:
            time.sleep(PAUSE_SECONDS)
        else:
            return
    table.update_incremental()
