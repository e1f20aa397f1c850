"""The tables of a lake as they are stored, opened without Spark."""

from collections.abc import Iterable
from dataclasses import dataclass

from deltalake import DeltaTable
from pyarrow import dataset, fs

from jobs.analysts.catalogue import tables_of
from jobs.analysts.dialect import Dialect
from jobs.arrowfiles import arrow_files
from jobs.errors import DataFault
from jobs.spec import Pipeline, Settings
from jobs.tables import Table


@dataclass(frozen=True)
class Stored:
    """A table that pipelines make, at `path`; `delta` is None where no run has made it yet."""

    table: Table
    path: str
    delta: DeltaTable | None

    @property
    def names(self) -> tuple[str, str]:
        """Its kind, and its name among those of the kind: the names of a schema and a view."""
        kind, name = self.table.name.split("/")
        return kind, name

    @property
    def comments(self) -> dict[str, str]:
        """The columns to show and what they mean: those that are declared, then what the table has beside them."""
        fields = self.delta.schema().fields if self.delta else []
        declared = {column.name: column.comment for column in self.table.columns}
        return declared | {field.name: field.metadata.get("comment", "") for field in fields}

    def select(self, source: str, dialect: Dialect) -> str:
        """Return the SELECT of these columns from `source`; of a table that is not there, no row.

        A column that is declared since the last write is NULL, as it will be when it is there.
        """
        types = {column.name: column.type for column in self.table.columns}
        has = {field.name for field in self.delta.schema().fields} if self.delta else set[str]()
        shown = [
            dialect.quoted(name)
            if name in has
            else f"CAST(NULL AS {dialect.type(types[name])}) AS {dialect.quoted(name)}"
            for name in self.comments
        ]
        return f"SELECT {', '.join(shown)} " + (f"FROM {source}" if self.delta else "WHERE false")


def stored(settings: Settings, pipelines: Iterable[Pipeline]) -> list[Stored]:
    """Return all tables that pipelines make, as they stand now.

    Raises:
        DataFault: the lake has none of them.
    """
    found = [_stored(table, settings.table(table.name)) for table in tables_of(pipelines).values()]
    if not any(one.delta for one in found):
        raise DataFault(
            f"{settings.lake} has no table of a pipeline; set SCORELINE_LAKE to the lake that has them, or run "
            "`scoreline ingest` first"
        )
    return found


def files(delta: DeltaTable, path: str) -> dataset.Dataset:
    """Return the files of a table for whoever takes Arrow's datasets: those that a filter rules out are never opened.

    They are read by Arrow's own file systems. By one of Python's, as deltalake has it by default, threads that outlive
    their work abort a process as it ends.
    """
    system, root = arrow_files(path)
    return delta.to_pyarrow_dataset(filesystem=fs.SubTreeFileSystem(root, system))


def _stored(table: Table, path: str) -> Stored:
    return Stored(table, path, DeltaTable(path) if DeltaTable.is_deltatable(path) else None)
