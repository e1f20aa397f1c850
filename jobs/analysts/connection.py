"""DuckDB over the lake: tables by their names and the views over them, read when they are asked for."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import duckdb

from jobs.analysts.catalogue import View, meanings, views
from jobs.analysts.dialect import DUCKDB
from jobs.analysts.stored import Stored, files, stored
from jobs.spec import Pipeline, Settings

# Nothing is downloaded by the way.
CONFIG = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
HERE, NOW = "memory", "now"
# How a row of a table says when it came; scores have a view that knows. Other tables have no past to show.
CAME = {
    "scores_superseded": "superseded_at",
    "scores_live": "COALESCE(scored_at, as_of)",
    "quality": "measured_at",
    "publications": '"at"',
}
COLUMNS = """
    SELECT schema_name || '.' || table_name AS "table", column_name AS "column", data_type AS "type", comment
    FROM duckdb_columns() WHERE database_name = 'memory' AND schema_name <> 'main'
    UNION ALL
    SELECT format('{}.{}({})', schema_name, function_name, array_to_string(parameters, ', ')), '', 'function', comment
    FROM duckdb_functions() WHERE database_name = 'memory'
    ORDER BY 1
"""


def opened(found: Settings, pipelines: list[Pipeline], at: datetime | None = None) -> duckdb.DuckDBPyConnection:
    """Return the connection for the lake of `found` and the tables of `pipelines`: what `jobs.analysts.lake` says."""
    tables = stored(found, pipelines)
    connection = duckdb.connect(config={**CONFIG})
    connection.execute("SET TimeZone = 'UTC'")
    if at is None:
        _put_now(Shelf(connection, HERE), tables, pipelines)
    else:
        connection.execute(f"ATTACH ':memory:' AS {NOW}")
        _put_now(Shelf(connection, NOW), tables, pipelines)
        _put_past(Shelf(connection, HERE), tables, pipelines, at if at.tzinfo else at.replace(tzinfo=UTC))
    connection.execute(f"CREATE VIEW {HERE}.main.columns AS {COLUMNS}")
    return connection


def _put_now(shelf: "Shelf", tables: list[Stored], pipelines: list[Pipeline]) -> None:
    for table in tables:
        shelf.put(table, table.select(shelf.source(table), DUCKDB))
    shelf.put_views(pipelines)


def _put_past(shelf: "Shelf", tables: list[Stored], pipelines: list[Pipeline], moment: datetime) -> None:
    for table in tables:
        if select := _past(table, moment):
            shelf.put(table, select)
    shelf.put_views(pipelines)


class Shelf:
    """A database of a connection, whose schemas are kinds of tables and views."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, name: str) -> None:
        self.connection, self.name = connection, name

    def source(self, table: Stored) -> str:
        """Return the name under which the connection knows the files of a table."""
        if table.delta:
            self.connection.register(table.table.name, files(table.delta, table.path))
        return DUCKDB.quoted("temp", "main", table.table.name)

    def put(self, table: Stored, select: str) -> None:
        """Give a table's names to `select`, with what its columns mean."""
        name = self._named(*table.names)
        self.connection.execute(f"CREATE VIEW {name} AS {select}")
        self._comment(name, table.comments)

    def put_views(self, pipelines: Iterable[Pipeline]) -> None:
        """Put all views of pipelines there."""
        for pipeline in pipelines:
            for view in views():
                self._put_view(view, pipeline.name)

    def _put_view(self, view: View, pipeline: str) -> None:
        name = self._named(view.name, pipeline)
        select = view.over(lambda kind: DUCKDB.quoted(self.name, kind, pipeline))
        if not view.parameters:
            self.connection.execute(f"CREATE VIEW {name} AS {select}")
            self.connection.execute(f"COMMENT ON VIEW {name} IS {DUCKDB.text(view.comment)}")
            self._comment(name, meanings(pipeline) | view.columns)
            return
        # Without types, so that a text will do for an instant.
        parameters = ", ".join(each.split()[0] for each in view.parameters)
        self.connection.execute(f"CREATE MACRO {name}({parameters}) AS TABLE {select}")
        self.connection.execute(f"COMMENT ON MACRO TABLE {name} IS {DUCKDB.text(view.comment)}")

    def _comment(self, name: str, comments: Mapping[str, str]) -> None:
        for column in self.connection.table(name).columns:
            place = f"{name}.{DUCKDB.quoted(column)}"
            self.connection.execute(f"COMMENT ON COLUMN {place} IS {DUCKDB.text(comments[column])}")

    def _named(self, kind: str, name: str) -> str:
        self.connection.execute(f"CREATE SCHEMA IF NOT EXISTS {DUCKDB.quoted(self.name, kind)}")
        return DUCKDB.quoted(self.name, kind, name)


def _past(table: Stored, moment: datetime) -> str | None:
    """Return the SELECT of what a table showed at a moment, if that can be told."""
    kind, name = table.names
    instant = f"TIMESTAMPTZ {DUCKDB.text(moment.isoformat())}"
    if kind == "scores":
        return f"SELECT * FROM {DUCKDB.quoted(NOW, 'scores_at', name)}({instant})"  # noqa: S608  reason: our own names
    if kind in CAME:
        return f"SELECT * FROM {DUCKDB.quoted(NOW, kind, name)} WHERE {CAME[kind]} <= {instant}"  # noqa: S608  reason: as above
    return None
