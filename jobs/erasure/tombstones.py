"""Tombstones: who was erased, by a keyed hash; they outlast everything, and stand where rows enter and are read."""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable
from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import arrow_udf

from jobs.erasure.secret import Secret, read_secret, remedy
from jobs.erasure.words import named, words
from jobs.errors import ErasureKeyLost
from jobs.publication.ledger import rows_of
from jobs.spec import Pipeline, Settings
from jobs.tables import ERASURES, Column, Table

BEGUN, DONE = "begun", "done"
EVERY = "*"  # in the place of a source: those too that are declared later
NONE = -1  # the version of a table of tombstones that is not there


def erasures_table() -> Table:
    """Return the table of erasures, which is their record as well: a row when one begins, and one at its end."""
    return Table(
        ERASURES,
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
    """The erased keys of one name space, of one source: values of its column `entity_key`."""

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
        """Return whether each text shows an erased key."""
        return _applied(self.shows, text)

    def shows(self, text: str | None) -> bool:
        """Return whether a text shows an erased key: in its field where it is JSON, else as a word."""
        key = named(text or "", self.entity_key)
        return any(map(self.has, words(text or ""))) if key is None else self.has(key)

    def without(self, rows: pa.Table, column: str) -> pa.Table:
        """Return rows without those of erased keys."""
        return rows.filter(pa.array([not self.has(key) for key in rows[column].to_pylist()], pa.bool_()))


class Tombstones:
    """The tombstones of a lake; where there are none, a look costs next to nothing."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.path = settings, settings.table(ERASURES)
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

    @property
    def unended(self) -> list[dict[str, Any]]:
        """The rows of erasures that have begun and not ended."""
        rows, ends = self.rows, dict[str, list[dict[str, Any]]]()
        for row in rows:
            if row["event"] == DONE:
                ends.setdefault(row["key_hash"], []).append(row)
        begun = (row for row in rows if row["event"] == BEGUN)
        return [row for row in begun if not any(_is_end_of(row, end) for end in ends.get(row["key_hash"], ()))]

    def of(self, source: str, columns: Container[str]) -> list[Erased]:
        """Return the erased keys of a source, for each of its `columns` that was an entity key of some of them.

        Pipelines that share a source may have keys of different columns: what one of them erased bars them all.

        Raises:
            ErasureKeyLost: there are some, and not the secret to tell them by.
        """
        barred: dict[str, list[dict[str, Any]]] = {}
        for row in self.rows:
            if {source, EVERY} & set(row["sources"]) and row["entity_key"] in columns:
                barred.setdefault(row["entity_key"], []).append(row)
        return [self._erased(rows) for rows in barred.values()]

    def at_work(self, pipeline: Pipeline) -> Erased | None:
        """Return a pipeline's keys whose erasure has begun and not ended, for tables may have them; None for none.

        Raises:
            ErasureKeyLost: there are some, and not the secret to tell them by.
        """
        bringing = {EVERY, *pipeline.sources}
        rows = (row for row in self.unended if bringing & set(row["sources"]))
        mine = [row for row in rows if row["entity_key"] == pipeline.entity_key]
        return self._erased(mine) if mine else None

    def require(self, secret: Secret) -> None:
        """Raise `ErasureKeyLost` where keys were erased with another secret."""
        if any(row["secret_id"] != secret.id for row in self.rows):
            raise ErasureKeyLost(f"{self.settings.erasure_key_file} has another secret than {ERASURES}; {remedy()}")

    @cached_property
    def secret(self) -> Secret:
        """The secret of this lake's hashes."""
        return read_secret(self.settings.erasure_key_file)

    def _erased(self, rows: Sequence[dict[str, Any]]) -> Erased:
        self.require(self.secret)
        return Erased(self.secret, rows[0]["entity_key"], frozenset(row["key_hash"] for row in rows))

    def _look(self) -> tuple[int, list[dict[str, Any]]]:
        if self._table is None:
            if not DeltaTable.is_deltatable(self.path):
                return self._known
            self._table = DeltaTable(self.path)
        self._table.update_incremental()
        version = self._table.version()
        if version != self._known[0]:
            self._known = (version, rows_of(self._table))
        return self._known


def without_erased(frame: DataFrame, settings: Settings, table: str) -> DataFrame:
    """Return the rows of a source's table (`events/name`) without those of erased keys, whoever brought them back."""
    for erased in Tombstones(settings).of(table.rpartition("/")[2], frame.columns):
        frame = frame.where(~erased.is_in(F.col(erased.entity_key)))
    return frame


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


def _is_end_of(begun: dict[str, Any], done: dict[str, Any]) -> bool:
    """Tell whether an erasure has ended with a later one of its key: that one did all of it again, if of no less."""
    is_of_all = EVERY in done["sources"] or set(begun["sources"]) <= set(done["sources"])
    return is_of_all and done["at"] >= begun["at"]
