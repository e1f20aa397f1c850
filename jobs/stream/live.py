"""How events become visible at once: small appends to the events table, without Spark, in the order of all appends."""

from datetime import datetime

import pyarrow as pa

from jobs.stream.tail import Marked, Tail
from jobs.stream.way import Way
from jobs.tables import APPENDS, VERSION


class LiveEvents:
    """The live end of an events table at `path`."""

    def __init__(self, path: str) -> None:
        self.tail = Tail(path)
        self.way = Way()

    def newest(self) -> int:
        """Return the number of the last append, whoever made it; -1 before the first."""
        self.tail.follow()
        return self._known()

    def append(self, rows: pa.Table, arrived_at: datetime) -> int:
        """Append events that arrive at `arrived_at` (UTC), and return the number of the append.

        `rows` has event_id, event_time and what the source declares, and `arrived_at` where they bring their own; how a
        file was delivered is unknown of them.

        Raises:
            Fenced: others appended at the same moment, again and again.
        """
        return self.tail.commit(lambda: self._next(rows, arrived_at))[APPENDS]

    def append_once(self, rows: pa.Table, arrived_at: datetime, app_id: str, number: int) -> bool:
        """Append events unless `app_id` has appended `number` or a later one before; return whether it did now.

        Raises:
            Fenced: others appended at the same moment, again and again.
        """

        def made() -> Marked | None:
            events, marks = self._next(rows, arrived_at)
            return None if self.tail.has_written(app_id, number) else (events, {**marks, app_id: number})

        return bool(self.tail.commit(made))

    def _next(self, rows: pa.Table, arrived_at: datetime) -> Marked:
        """Return rows as the next append, after whoever asks for way now."""
        self.way.make(self.tail)
        version = self._known() + 1
        return self._as_stored(rows, {"arrived_at": arrived_at, VERSION: version}), {APPENDS: version}

    def _known(self) -> int:
        last = self.tail.written(APPENDS)
        return -1 if last is None else last

    def _as_stored(self, rows: pa.Table, given: dict[str, object]) -> pa.Table:
        columns = [
            rows[field.name].cast(field.type) if field.name in rows.column_names
            else pa.repeat(pa.scalar(given.get(field.name), field.type), len(rows))
            for field in self.tail.schema
        ]  # fmt: skip
        return pa.table(columns, schema=self.tail.schema)
