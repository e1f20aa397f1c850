"""The statements with which Spark SQL has the tables of a lake under the names that DuckDB has them under."""

from collections.abc import Iterator

from jobs.analysts.catalogue import View, views
from jobs.analysts.dialect import SPARK
from jobs.analysts.stored import Stored, stored
from jobs.spec import Pipeline, Settings


def statements(found: Settings, pipelines: list[Pipeline]) -> Iterator[str]:
    """Yield the statements, each after those that it needs.

    Raises:
        DataFault: the lake has no table.
    """
    tables = stored(found, pipelines)
    yield "SET spark.sql.session.timeZone = UTC"
    schemas = {table.names[0] for table in tables} | {view.name for view in views()}
    for schema in sorted(schemas):
        yield f"CREATE DATABASE IF NOT EXISTS {SPARK.quoted(schema)}"
    for table in tables:
        yield _table(table)
    for pipeline in pipelines:
        for view in views():
            yield _view(view, pipeline.name)


def _table(table: Stored) -> str:
    columns = ", ".join(
        f"{SPARK.quoted(name)} COMMENT {SPARK.text(comment)}" for name, comment in table.comments.items()
    )
    select = table.select(f"delta.{SPARK.quoted(table.path)}", SPARK)
    return f"CREATE OR REPLACE VIEW {SPARK.quoted(*table.names)} ({columns}) AS {select}"


def _view(view: View, pipeline: str) -> str:
    name, comment = SPARK.quoted(view.name, pipeline), f"COMMENT {SPARK.text(view.comment)}"
    select = view.over(lambda kind: SPARK.quoted(kind, pipeline))
    if not view.parameters:
        return f"CREATE OR REPLACE VIEW {name} {comment} AS {select}"
    return f"CREATE OR REPLACE FUNCTION {name}({', '.join(view.parameters)}) RETURNS TABLE {comment} RETURN {select}"
