"""The commands of analysts: SQL over the lake, and the views for other engines."""

import sys
from datetime import datetime
from typing import TYPE_CHECKING

import click

from jobs.analysts import lake
from jobs.errors import QueryRefused
from jobs.spec import load_pipelines, settings
from jobs.start import instant

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@click.command()
@click.argument("query")
@click.option("--at", callback=instant, metavar="TIME", help="Scores, quality, publications as they stood then (UTC).")
def sql(query: str, at: datetime | None) -> None:
    """Run QUERY (DuckDB's SQL; - reads it) over the lake, without any service; CSV where the output is no terminal.

    A table KIND/NAME of the lake is KIND.NAME. "FROM columns" lists all tables and views, and what their columns mean.
    """
    from jobs.analysts.printed import print_rows

    text = sys.stdin.read() if query == "-" else query
    with lake(at) as connection:
        result = _ran(connection, text, at)
        if result.description:
            print_rows(result, sys.stdout)


@click.command()
def views() -> None:
    """Print the statements that give Spark the lake's tables and views by the names that `scoreline sql` has."""
    from jobs.analysts.script import statements

    found = settings()
    for statement in statements(found, list(load_pipelines(found.pipelines).values())):
        click.echo(f"{statement};")


ANALYSTS = (sql, views)


def _ran(connection: "DuckDBPyConnection", text: str, at: datetime | None) -> "DuckDBPyConnection":
    import duckdb

    try:
        return connection.execute(text)
    except duckdb.Error as error:
        said = str(error).split("\n\nLINE ")[0].rstrip("!.")
        missing = isinstance(error, duckdb.CatalogException)
        hint = "`scoreline sql 'FROM columns'` lists what there is" if missing else "mend the query"
        past = "; with --at, write `now.` before what has no past" if missing and at else ""
        raise QueryRefused(f"{said}; {hint}{past}") from error
