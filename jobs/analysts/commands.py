"""The commands of analysts: SQL over the lake, and the views for other engines."""

import sys
from datetime import datetime
from typing import TYPE_CHECKING

import click

from jobs.analysts import lake
from jobs.errors import QueryRefused
from jobs.spec import load_pipelines, settings

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def _instant(_: click.Context, __: click.Parameter, text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError as error:
        raise click.BadParameter(f"{error}; write such as 1998-06-02 or 1998-06-02T06:30:00Z") from error


@click.command()
@click.argument("query")
@click.option("--at", callback=_instant, metavar="TIME", help="Scores, quality, publications as they stood then (UTC).")
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
@click.option("--engine", type=click.Choice(["spark"]), required=True, help="Who is to have them.")
def views(engine: str) -> None:  # noqa: ARG001  reason: there is one so far, and who asks says which
    """Print the statements that give an engine the lake's tables and views by the names that `scoreline sql` has."""
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
