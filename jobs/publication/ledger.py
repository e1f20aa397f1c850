"""The ledger of generations in Delta, without Spark: a token is reserved there before the first block is written."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any, Final

from arro3.core import Array, DataType, Field, Schema, Table
from deltalake import CommitProperties, DeltaTable, QueryBuilder, write_deltalake
from deltalake.exceptions import CommitFailedError

from jobs.errors import Fenced
from jobs.spec import Settings
from serving.clock import Clock, instant, microseconds
from serving.errors import HeadUnreadable
from serving.head import Head, parse_head
from serving.refusals import MOST_DATES, Refusal
from serving.store import Outcome

RESERVED, VERIFIED, LIVE, REMOVED, OVERLAY_DROPPED = "reserved", "verified", "live", "removed", "overlay dropped"
REPAIRED = "repaired"
ERASED = "erased"  # a row less: rows and checksum of its manifest are those of the generation from then on
HISTORY: Final = "history only"
BREACH: Final = "rail breach"
DIFFERS: Final = "differs"
REFUSED = (HISTORY, BREACH, DIFFERS)
NO_GENERATION = 0  # the token of what was never built
TRIES = 20
MANY_FILES = 100  # some three weeks of daily publications, and a quarter of a second to read
GRACE = timedelta(seconds=10)  # no reader holds a head longer
UNKNOWN = 0  # the epoch, for the order of what went live with a manifest that this version cannot read

Order = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What the ledger is told of a generation; `manifest` is the head that was verified or went live."""

    as_of: datetime
    run_id: str
    token: int = NO_GENERATION
    rows: int = 0
    checksum: int = 0
    buckets: int = 0
    note: str = ""
    manifest: Head | None = None

    @classmethod
    def of(cls, head: Head, note: str = "") -> "Entry":
        """Return the entry of a head."""
        return cls(
            as_of=instant(head.as_of),
            run_id=head.run_id,
            token=head.token,
            rows=head.rows,
            checksum=head.checksum,
            buckets=head.layout.buckets,
            note=note,
            manifest=head,
        )


@dataclass(frozen=True)
class Turn:
    """One time that a generation was live: since when, in which order, and with which head, if that can be read."""

    token: int
    at: datetime
    order: Order
    head: Head | None


@dataclass(frozen=True)
class Generation:
    """A generation by all that the ledger has of it; `turns` are in their order."""

    token: int
    as_of: datetime
    rows: int
    buckets: int
    reserved_at: datetime
    turns: tuple[Turn, ...]
    removed: bool


@dataclass(frozen=True)
class History:
    """All generations of a pipeline by token, and the last heads of the epochs whose overlays were dropped.

    `refused` says by as_of date why scores are not live: the newest dates, the newest of them first.
    """

    generations: tuple[Generation, ...] = ()
    dropped: tuple[Head, ...] = ()
    refused: Mapping[date, Refusal] = field(default_factory=dict)

    @property
    def turns(self) -> list[Turn]:
        """All that went live, in the order in which it did, whatever the clocks said."""
        return sorted((turn for one in self.generations for turn in one.turns), key=lambda turn: turn.order)

    @property
    def last(self) -> Head | None:
        """The head that went live last, by the ledger."""
        return next((turn.head for turn in reversed(self.turns) if turn.head), None)

    def has(self, head: Head) -> bool:
        """Return whether it is known that this head went live."""
        return any(turn.order == head.order for turn in self.turns)


@dataclass(frozen=True)
class Ledger:
    """The ledger at `path`, whose table is called `name`."""

    path: str
    name: str
    clock: Clock

    @classmethod
    def of(cls, settings: Settings, pipeline: str, clock: Clock) -> "Ledger":
        """Return the ledger of a pipeline."""
        name = f"publications/{pipeline}"
        return cls(settings.table(name), name, clock)

    @property
    def is_there(self) -> bool:
        """Whether the lake has the table."""
        return DeltaTable.is_deltatable(self.path)

    def reserve(self, wanted: Entry, above: int) -> Entry:
        """Return the entry with a token that nobody else has, above `above` and all that were reserved before.

        Who reads the ledger and writes its next version alone can have the token: another one at the same time reads
        again. What is live in Redis is named in `above`, since a ledger that was lost does not know of it.
        """
        for _ in range(TRIES):
            table = DeltaTable(self.path)
            entry = replace(wanted, token=max([above, *(row["token"] for row in rows_of(table))]) + 1)
            try:
                self.append(table, [(RESERVED, entry)], CommitProperties(max_commit_retries=0))
            except CommitFailedError:
                continue
            return entry
        raise Fenced(f"{self.name}: no token was free in {TRIES} tries; run the task again")

    def write(self, events: Iterable[tuple[str, Entry]]) -> None:
        """Put on record what happened to generations."""
        self.append(DeltaTable(self.path), events, CommitProperties())

    def go_live(self, entry: Entry, swap: Callable[[], Outcome]) -> Outcome:
        """Let the entry's manifest go live by `swap`: it is on record before, so that no head in Redis is a mystery."""
        self.write([(VERIFIED, entry)])
        outcome = swap()
        if outcome == "live":
            self.write([(LIVE, entry)])
        return outcome

    def admit(self, head: Head | None) -> History:
        """Return the history, in which a head that is live has gone live: its publisher may have died too soon."""
        history = self.read()
        if head is None or history.has(head):
            return history
        self.write([(LIVE, Entry.of(head, "found live"))])
        return self.read()

    def compact(self) -> None:
        """Join the files of many small appends, once there are too many to be read in an instant."""
        table = DeltaTable(self.path)
        if len(table.file_uris()) > MANY_FILES:
            with suppress(CommitFailedError):  # another one does it
                table.optimize.compact()

    def read(self) -> History:
        """Return what the ledger has, nothing where there is none: a few rows a day, so that they fit in memory."""
        if not self.is_there:
            return History()
        rows = sorted(rows_of(DeltaTable(self.path)), key=itemgetter("token"))
        dropped = (head_of(row) for row in rows if row["event"] == OVERLAY_DROPPED)
        known = (row for row in rows if row["token"] != NO_GENERATION)
        generations = (_generation(token, list(events)) for token, events in groupby(known, key=itemgetter("token")))
        return History(tuple(generations), tuple(head for head in dropped if head), _refused(rows))

    def append(self, table: DeltaTable, events: Iterable[tuple[str, Entry]], how: CommitProperties) -> None:
        """Put on record what happened, as the next version of `table` or as `how` says."""
        now = self.clock.now()
        rows = [_row(event, entry, now) for event, entry in events]
        if rows:
            schema = Schema.from_arrow(table.schema())
            columns = [_column(schema.field(name), [row[name] for row in rows]) for name in schema.names]
            write_deltalake(table, Table.from_arrays(columns, schema=schema), mode="append", commit_properties=how)


def rows_of(table: DeltaTable) -> list[dict[str, Any]]:
    """Return all rows of a small table.

    By deltalake's own engine: of pyarrow's, pandas alone takes a quarter of a second.
    """
    found = QueryBuilder().register("known", table).execute("SELECT * FROM known").read_all()
    columns = [found.column(name).to_pylist() for name in found.column_names]
    return [dict(zip(found.column_names, values, strict=True)) for values in zip(*columns, strict=True)]


def _column(field: Field, values: list[object]) -> Array:
    """Return a column of texts, or of numbers, which a cast makes instants where the table has those."""
    kind = DataType.string() if field.type == DataType.string() else DataType.int64()
    return Array(values, kind).cast(field.type)


def _row(event: str, entry: Entry, now: datetime) -> dict[str, object]:
    """Return a row of the table, whose instants are microseconds since 1970."""
    return {
        "token": entry.token,
        "event": event,
        "at": microseconds(now),
        "as_of": microseconds(entry.as_of),
        "run_id": entry.run_id,
        "rows": entry.rows,
        "checksum": str(entry.checksum),
        "buckets": entry.buckets,
        "note": entry.note,
        "manifest": entry.manifest.to_json().decode() if entry.manifest else None,
    }


def head_of(row: dict[str, Any]) -> Head | None:
    """Return the row's manifest, if it has one that this version can read."""
    record = row["manifest"]
    with suppress(HeadUnreadable):
        return parse_head(record.encode()) if record else None
    return None


def _generation(token: int, rows: list[dict[str, Any]]) -> Generation:
    left = _left(rows)
    turns = sorted((_corrected(_turn(row), left) for row in rows if row["event"] == LIVE), key=lambda turn: turn.order)
    return Generation(
        token,
        as_of=rows[0]["as_of"],
        rows=left.rows if left else max(row["rows"] for row in rows),
        buckets=max(row["buckets"] for row in rows),
        reserved_at=min(row["at"] for row in rows),
        turns=tuple(turns),
        removed=any(row["event"] == REMOVED for row in rows),
    )


def _left(rows: list[dict[str, Any]]) -> Head | None:
    """Return what erasures have left of a generation, None where it is as it was written: each takes a row off."""
    heads = [head for head in map(head_of, (row for row in rows if row["event"] == ERASED)) if head]
    return min(heads, key=lambda head: head.rows, default=None)


def _corrected(turn: Turn, left: Head | None) -> Turn:
    if turn.head is None or left is None:
        return turn
    return replace(turn, head=replace(turn.head, rows=left.rows, checksum=left.checksum))


def _refused(rows: list[dict[str, Any]]) -> dict[date, Refusal]:
    """Return the last word on each date that did not go live, or was taken back, and did not go live since."""
    turns = sorted((row for row in rows if row["event"] == LIVE), key=lambda row: _turn(row).order)
    lived = {row["as_of"].date(): microseconds(row["at"]) for row in turns}
    found = _taken_back(turns)
    for row in sorted(rows, key=itemgetter("at")):
        day, event, at = row["as_of"].date(), row["event"], microseconds(row["at"])
        if event in REFUSED and at > max(lived.get(day, 0), found[day].at if day in found else 0):
            found[day] = Refusal(event, row["note"], at)
    return dict(sorted(found.items(), reverse=True)[:MOST_DATES])


def _taken_back(turns: list[dict[str, Any]]) -> dict[date, Refusal]:
    """Return the dates after which an older one went live, and that have not since; no clock has a say in that."""
    found: dict[date, Refusal] = {}
    for before, row in pairwise(turns):
        if before["as_of"] > row["as_of"]:
            found[before["as_of"].date()] = Refusal("rolled back", row["note"], microseconds(row["at"]))
        found.pop(row["as_of"].date(), None)
    return found


def _turn(row: dict[str, Any]) -> Turn:
    head = head_of(row)
    order = head.order if head else (UNKNOWN, microseconds(row["as_of"]), row["token"])
    return Turn(row["token"], row["at"], order, head)
