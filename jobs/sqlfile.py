"""A pipeline's SQL files: read, parsed, and refused where a query could give another answer the second time."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlglot
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from sqlglot import exp
from sqlglot.errors import ParseError, SqlglotError

from jobs.errors import SqlRefused
from jobs.spec import Pipeline, Settings
from jobs.sqlrules import Reads, refusals

VIEWS = {
    "population": ("events", "as_ofs"),
    "features": ("events", "spine"),
    "labels": ("events", "spine"),
    "evaluation": ("features",),
}
# ISO 9075's classes of what a query's author can mend: cardinality, data, syntax and names, and raise_error().
_AUTHOR = re.compile(r"(21|22|42|P0)\w{3}")
_STATE = re.compile(r"SQLSTATE: (\w{5})")
# Spark's advice, which jobs.session makes impossible to follow.
_BYPASS = re.compile(r' If necessary set "spark\.sql\.ansi\.enabled" to "false" to bypass this error\.')


@dataclass(frozen=True)
class SqlFile:
    """One SELECT and where it comes from."""

    path: Path
    text: str

    @property
    def digest(self) -> str:
        """SHA-256 of the text, in hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def pipeline_sql(settings: Settings, pipeline: Pipeline, kind: str) -> SqlFile:
    """Return the pipeline's SQL file of a kind (population, features, labels, evaluation).

    Raises:
        SqlRefused: as read_sql, or it reads another table than the views of its kind.
    """
    dimensions = tuple(pipeline.dimensions) if kind == "features" else ()
    reads = Reads(frozenset((*VIEWS[kind], *dimensions)), inexact_columns(pipeline))
    return read_sql(settings.sql(pipeline.name, kind), reads)


def inexact_columns(pipeline: Pipeline) -> frozenset[str]:
    """Return the columns that the pipeline's sources declare as DOUBLE or FLOAT."""
    columns = [column for source in pipeline.sources.values() for column in source.columns.items()]
    return frozenset(name for name, type_ in columns if type_ in ("float", "double"))


def read_sql(path: Path, reads: Reads | None = None) -> SqlFile:
    """Return the one SELECT of the file `path`; without `reads` it may read any view.

    Raises:
        SqlRefused: the file is missing, is not one SELECT, reads what is not a view, or calls what could give another
            answer the second time. That an ORDER BY has ties, a file alone does not tell.
    """
    text = _text(path)
    query = _query(path, text)
    for refusal in refusals(query, reads):
        raise SqlRefused(f"{path}: {refusal}")
    return SqlFile(path, text)


@contextmanager
def naming(*paths: Path) -> Iterator[None]:
    """Name the SQL file in what Spark says of it, be it while a query is resolved or while its rows are computed.

    What a query's author can't mend (a full disk, a lost executor) passes as it is.

    Raises:
        SqlRefused: Spark refuses a query of one of `paths`, or a value in it can't be computed.
    """
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        state = _STATE.search(str(error))
        if state is None or not _AUTHOR.fullmatch(state[1]):
            raise
        raise SqlRefused(f"{' or '.join(map(str, paths))}: {_first_line(str(error))}") from error


def _first_line(text: str) -> str:
    return _BYPASS.sub("", text[max(text.find("["), 0) :].splitlines()[0]).strip()


def _text(path: Path) -> str:
    if not path.is_file():
        raise SqlRefused(f"{path} does not exist: write it (see 'Adding a pipeline' in the README)")
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise SqlRefused(f"{path}: this file is not UTF-8 text; save it as UTF-8") from None


def _query(path: Path, text: str) -> exp.Query:
    try:
        statements = [found for found in sqlglot.parse(text, dialect="spark") if found is not None]
    except ParseError as error:
        where = error.errors[0]
        raise SqlRefused(f"{path}:{where.get('line')}: this is not Spark SQL: {where.get('description')}") from None
    except SqlglotError as error:
        raise SqlRefused(f"{path}: this is not Spark SQL: {error}; is a quote or a comment left open?") from None
    if len(statements) != 1 or not isinstance(statements[0], exp.Query):
        raise SqlRefused(f"{path}: has {len(statements)} statements: write one SELECT")
    return statements[0]
