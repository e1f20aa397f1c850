"""The newest end of a Delta table: followed and appended to without Spark, while others write to it."""

import time
from collections.abc import Callable
from functools import partial

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from jobs.errors import Fenced
from jobs.stream.checksum import Checksums

TRIES = 20
PAUSE_SECONDS = 0.05
# delta-rs keeps all commits since a table was opened, and goes through them at each further one: 60 us each.
LONGEST_TAIL = 100
# To look for old log files lists the whole log: after each commit it would be most of its cost.
_NO_TIDYING = PostCommitHookProperties(cleanup_expired_logs=False)

# The rows of an append, and the version that it is for each application id.
Marked = tuple[pa.Table, dict[str, int]]


class Tail:
    """The newest end of the table at `path`; `table` is as it stood when it was last looked at."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.table = DeltaTable(path)
        self.opened = self.table.version()
        self.schema = pa.schema(self.table.schema().to_arrow())
        self.checksums = Checksums(path)

    def follow(self) -> None:
        """Look at the newest version.

        Two writers at the same moment may leave a version to be seen before the one below it, for a moment: that is
        looked at again.

        Raises:
            DeltaError: the log cannot be read, nor some tries later.
        """
        for _ in range(TRIES):
            try:
                self._look()
            except DeltaError:
                time.sleep(PAUSE_SECONDS)
            else:
                return
        self._look()

    def written(self, app_id: str) -> int | None:
        """Return the last version that `app_id` has written; None for none."""
        return self.table.transaction_version(app_id)

    def has_written(self, app_id: str, version: int) -> bool:
        """Return whether `app_id` has written `version` or a later one."""
        written = self.written(app_id)
        return written is not None and written >= version

    def commit(self, make: Callable[[], Marked | None]) -> dict[str, int]:
        """Append, all in one commit, what `make` says of the newest version; say again where others were faster.

        Returns the marks that were committed; none where `make` found nothing to do.

        Raises:
            Fenced: others committed at the same moment, again and again.
        """
        for _ in range(TRIES):
            self.follow()
            marked = make()
            if marked is None:
                return {}
            if self._commits(*marked):
                return marked[1]
        raise Fenced(f"{self.table.table_uri}: others appended at the same moment, {TRIES} times: try again")

    def _look(self) -> None:
        self.table.update_incremental()
        if self.table.version() >= self.opened + LONGEST_TAIL:
            self.table = DeltaTable(self.path)
            self.opened = self.table.version()

    def _commits(self, rows: pa.Table, marks: dict[str, int]) -> bool:
        """Commit rows; return False where somebody else has one of the marks."""
        now = time.time_ns() // 1_000_000  # Delta forgets by the time of its log, whatever a demo's clock shows
        marked = CommitProperties(app_transactions=[Transaction(name, number, now) for name, number in marks.items()])
        append = partial(write_deltalake, mode="append", post_commithook_properties=_NO_TIDYING)
        try:
            append(self.table, rows, commit_properties=marked)
        except CommitFailedError:
            return False
        self.checksums.write(self.table)
        return True
