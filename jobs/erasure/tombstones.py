"""Tombstones: who was erased, by a keyed hash; they outlast everything, and stand where rows enter and are read."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder
from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import arrow_udf

from jobs.erasure.secret import Secret, read_secret, remedy
from jobs.erasure.words import words
from jobs.errors import ErasureKeyLost
from jobs.spec import Settings
from jobs.tables import Column, Table

NAME = "erasures"
BEGUN, DONE = "begun", "done"
EVERY = "*"  # in the place of a source: those too that are declared later
NONE = -1  # the version of a table of tombstones that is not there


def erasures_table() -> Table:
    """Return the table of erasures, which is their record as well: a row when one begins, and one at its end."""
    return Table(
        NAME,
        (
            Column("entity_key", "STRING", "the column whose values the key is one of"),
            Column("key_hash", "STRING", "HMAC-SHA256 of the key: the key itself is nowhere"),
            Column("secret_id", "STRING", "which secret the hash was made with"),
            Column("sources", "ARRAY<STRING>", "sources that bring the key no more; * for all that there ever are"),
            Column("event", "STRING", "begun or done"),
            Column("at", "TIMESTAMP", "when"),
            Column("reason", "STRING", "why, in words"),
            Column("told", "STRING", "what was found where: counts, as JSON"),
        ),
        properties={"delta.dataSkippingNumIndexedCols": "0"},
    )


@dataclass(frozen=True)
class Erased:
    """The erased keys of one name space, of one source."""

    secret: Secret
    entity_key: str
    hashes: frozenset[str]

    def has(self, key: str | None) -> bool:
        """Return whether a key was erased."""
        return key is not None and self.secret.hash_of(self.entity_key, key) in self.hashes

    def is_in(self, keys: SparkColumn) -> SparkColumn:
        """Return whether each key was erased; the secret is in the code that runs, and in no plan."""
        return _applied(self.has, keys)

    def is_shown(self, text: SparkColumn) -> SparkColumn:
        """Return whether each text shows an erased key as a word."""
        return _applied(self.shows, text)

    def shows(self, text: str | None) -> bool:
        """Return whether a text shows an erased key as a word."""
        return any(map(self.has, words(text or "")))

    def without(self, rows: pa.Table, column: str) -> pa.Table:
        """Return rows without those of erased keys."""
        return rows.filter(pa.array([not self.has(key) for key in rows[column].to_pylist()], pa.bool_()))


class Tombstones:
    """The tombstones of a lake; where there are none, a look costs next to nothing."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.path = settings, settings.table(NAME)
        self._table: DeltaTable | None = None
        self._known: tuple[int, list[dict[str, Any]]] = (NONE, [])

    @property
    def version(self) -> int:
        """What rises with each erasure."""
        return self._look()[0]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All rows of the table."""
        return self._look()[1]

    def of(self, source: str, entity_key: str) -> Erased | None:
        """Return the erased keys of a source; None where there are none.

        Raises:
            ErasureKeyLost: there are some, and not the secret to tell them by.
        """
        return self._erased(row for row in self.rows if {source, EVERY} & set(row["sources"]) and _is(row, entity_key))

    def at_work(self, entity_key: str) -> Erased | None:
        """Return the keys whose erasure has begun and not ended: tables may still have them; None for none.

        Raises:
            ErasureKeyLost: there are some, and not the secret to tell them by.
        """
        mine = [row for row in self.rows if _is(row, entity_key)]
        open_ = {row["key_hash"] for row in mine if row["event"] == BEGUN and not _has_ended(row, mine)}
        return self._erased(row for row in mine if row["key_hash"] in open_)

    def require(self, secret: Secret) -> None:
        """Raise `ErasureKeyLost` where keys were erased with another secret."""
        if any(row["secret_id"] != secret.id for row in self.rows):
            raise ErasureKeyLost(f"{self.settings.erasure_key_file} has another secret than {NAME}; {remedy()}")

    @cached_property
    def secret(self) -> Secret:
        """The secret of this lake's hashes."""
        return read_secret(self.settings.erasure_key_file)

    def _erased(self, rows: Iterable[dict[str, Any]]) -> Erased | None:
        found = list(rows)
        if not found:
            return None
        self.require(self.secret)
        return Erased(self.secret, found[0]["entity_key"], frozenset(row["key_hash"] for row in found))

    def _look(self) -> tuple[int, list[dict[str, Any]]]:
        if self._table is None:
            if not DeltaTable.is_deltatable(self.path):
                return self._known
            self._table = DeltaTable(self.path)
        self._table.update_incremental()
        version = self._table.version()
        if version != self._known[0]:
            self._known = (version, read_rows(self._table))
        return self._known


def without_erased(frame: DataFrame, settings: Settings, table: str, entity_key: str) -> DataFrame:
    """Return the rows of a source's table (`events/name`) without those of erased keys, whoever brought them back."""
    erased = Tombstones(settings).of(table.rpartition("/")[2], entity_key)
    return frame if erased is None else frame.where(~erased.is_in(F.col(entity_key)))


def read_rows(table: DeltaTable) -> list[dict[str, Any]]:
    """Return all rows of a small table."""
    found = QueryBuilder().register("known", table).execute("SELECT * FROM known").read_all()
    columns = [found.column(name).to_pylist() for name in found.column_names]
    return [dict(zip(found.column_names, values, strict=True)) for values in zip(*columns, strict=True)]


def _applied(is_marked: Callable[[str | None], bool], column: SparkColumn) -> SparkColumn:
    make: Any = arrow_udf  # its types know plain functions of arrays only by their annotations
    marked: SparkColumn = make(_marker(is_marked), "boolean")(column)
    return marked


def _marker(is_marked: Callable[[str | None], bool]) -> Callable[[pa.Array], pa.Array]:
    def marked(values: pa.Array) -> pa.Array:
        known: dict[str | None, bool] = {}
        for value in values.unique().to_pylist():
            known[value] = is_marked(value)
        return pa.array([known[value] for value in values.to_pylist()], pa.bool_())

    return marked


def _is(row: dict[str, Any], entity_key: str) -> bool:
    return bool(row["entity_key"] == entity_key)


def _has_ended(begun: dict[str, Any], rows: list[dict[str, Any]]) -> bool:
    """Tell whether an erasure that has begun came to its end: each later one of the same key does all of it again."""
    ends = (row["at"] for row in rows if row["event"] == DONE and row["key_hash"] == begun["key_hash"])
    return any(at >= begun["at"] for at in ends)
