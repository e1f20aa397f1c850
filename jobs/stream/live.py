"""How events become visible at once: small appends to the events table, without Spark, in the order of all appends."""

from datetime import datetime

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from jobs.errors import Fenced
from jobs.stream.follow import follow
from jobs.stream.way import Way
from jobs.tables import APPENDS, VERSION

TRIES = 20


class LiveEvents:
    """The live end of an events table at `path`."""

    def __init__(self, path: str) -> None:
        self.table = DeltaTable(path)
        self.schema: pa.Schema = pa.schema(self.table.schema().to_arrow())
        self.way = Way()

    def newest(self) -> int:
        """Return the number of the last append, whoever made it; -1 before the first."""
        follow(self.table)
        last = self.table.transaction_version(APPENDS)
        return -1 if last is None else last

    def append(self, rows: pa.Table, arrived_at: datetime) -> int:
        """Append events that arrive at `arrived_at` (UTC), and return the number of the append.

        `rows` has event_id, event_time and what the source declares, and `arrived_at` where they bring their own; how a
        file was delivered is unknown of them.

        Raises:
            Fenced: others appended at the same moment, again and again.
        """
        for _ in range(TRIES):
            version = self._next()
            if self._commits(rows, {"arrived_at": arrived_at, VERSION: version}, [Transaction(APPENDS, version)]):
                return version
        raise self._fenced()

    def append_once(self, rows: pa.Table, arrived_at: datetime, app_id: str, number: int) -> bool:
        """Append events unless `app_id` has appended `number` or a later one before; return whether it did now."""
        for _ in range(TRIES):
            version, written = self._next(), self.table.transaction_version(app_id)
            if written is not None and written >= number:
                return False
            marks = [Transaction(APPENDS, version), Transaction(app_id, number)]
            if self._commits(rows, {"arrived_at": arrived_at, VERSION: version}, marks):
                return True
        raise self._fenced()

    def _next(self) -> int:
        self.way.make(self.table)
        return self.newest() + 1

    def _commits(self, rows: pa.Table, given: dict[str, object], marks: list[Transaction]) -> bool:
        """Commit rows, all in one; return False where somebody else has the number."""
        columns = [
            rows[field.name].cast(field.type) if field.name in rows.column_names
            else pa.repeat(pa.scalar(given.get(field.name), field.type), len(rows))
            for field in self.schema
        ]  # fmt: skip
        commit = CommitProperties(app_transactions=marks)
        try:
            write_deltalake(self.table, pa.table(columns, schema=self.schema), mode="append", commit_properties=commit)
        except CommitFailedError:
            return False
        return True

    def _fenced(self) -> Fenced:
        return Fenced(f"{self.table.table_uri}: others appended at the same moment, {TRIES} times: try again")
