"""How a Delta table's log is followed and written to, without Spark, while others write to it."""

import logging
import time
from collections.abc import Callable

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from jobs.errors import Fenced

LOG = logging.getLogger(__name__)
TRIES = 20
PAUSE_SECONDS = 0.05
TIDY_COMMITS = 100  # to look for old log files lists the whole log: after each commit it would be most of its cost
_NO_TIDYING = PostCommitHookProperties(cleanup_expired_logs=False)

# The rows of an append, and the version that it is for each application id.
Marked = tuple[pa.Table, dict[str, int]]


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


def is_written(table: DeltaTable, app_id: str, version: int) -> bool:
    """Return whether `app_id` has written `version` or a later one, as far as `table` knows by now."""
    written = table.transaction_version(app_id)
    return written is not None and written >= version


def commit(table: DeltaTable, make: Callable[[], Marked | None]) -> dict[str, int]:
    """Append, all in one commit, what `make` says of the newest version of `table`; say again where others were faster.

    Returns the marks that were committed; none where `make` found nothing to do.

    Raises:
        Fenced: others committed at the same moment, again and again.
    """
    for _ in range(TRIES):
        follow(table)
        marked = make()
        if marked is None:
            return {}
        if _commits(table, *marked):
            return marked[1]
    raise Fenced(f"{table.table_uri}: others appended at the same moment, {TRIES} times: try again")


def _commits(table: DeltaTable, rows: pa.Table, marks: dict[str, int]) -> bool:
    """Commit rows; return False where somebody else has one of the marks."""
    now = time.time_ns() // 1_000_000  # Delta forgets by the time of its log, whatever a demo's clock shows
    marked = CommitProperties(app_transactions=[Transaction(app_id, number, now) for app_id, number in marks.items()])
    try:
        write_deltalake(table, rows, mode="append", commit_properties=marked, post_commithook_properties=_NO_TIDYING)
    except CommitFailedError:
        return False
    if table.version() % TIDY_COMMITS == 0:
        _tidy(table)
    return True


def _tidy(table: DeltaTable) -> None:
    """Remove log files that are older than the table's properties say; that may fail, for what is committed stays."""
    try:
        table.cleanup_metadata()
    except (DeltaError, OSError) as fault:
        LOG.warning("%s: old log files stay for now: %s", table.table_uri, fault)
