"""What an analyst finds in a lake: the tables that pipelines make, and a view over them for each SQL file beside."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from graphlib import TopologicalSorter
from itertools import takewhile
from pathlib import Path

from pyspark.sql.types import StringType, StructField, StructType, TimestampType

from jobs import tables
from jobs.spec import Pipeline
from jobs.tables import Table, superseded

FILES = Path(__file__).parent / "views"
NAMED = re.compile(r"(\w+)\.\{pipeline\}")  # how a view's SQL names a table or another view of its pipeline
PARAMETERS = "-- Parameters: "
COLUMN = re.compile(r"-- Column (\w+): (.*)")
# What features.sql gives more than these, the stored table alone knows.
_SPINE = StructType([StructField("key", StringType()), StructField("as_of", TimestampType())])


@dataclass(frozen=True)
class View:
    """A view `name` of each pipeline; with `parameters`, a function that gives a table.

    `columns` says what those columns mean that are not columns of scores.
    """

    name: str
    comment: str
    columns: dict[str, str]
    parameters: tuple[str, ...]
    text: str

    @property
    def reads(self) -> frozenset[str]:
        """The kinds of tables and views that it reads."""
        return frozenset(NAMED.findall(self.text))

    def over(self, named: Callable[[str], str]) -> str:
        """Return its SELECT over what `named` calls each kind of table and view that it reads."""
        return NAMED.sub(lambda found: named(found[1]), self.text)


@lru_cache(maxsize=1)
def views() -> tuple[View, ...]:
    """Return all views, each after those that it reads."""
    found = {path.stem: _read(path) for path in sorted(FILES.glob("*.sql"))}
    order = TopologicalSorter({name: sorted(view.reads & found.keys()) for name, view in found.items()})
    return tuple(found[name] for name in order.static_order())


def tables_of(pipelines: Iterable[Pipeline]) -> dict[str, Table]:
    """Return by name the tables that pipelines make, of features those columns alone that all features have."""
    return {table.name: table for pipeline in pipelines for table in _tables(pipeline)}


def _tables(pipeline: Pipeline) -> list[Table]:
    name = pipeline.name
    sources = [
        tables.events_table(each, source) if source.kind == "events" else tables.dimension_table(each, source)
        for each, source in pipeline.sources.items()
    ]
    features, scores = tables.features_table(name, _SPINE), tables.scores_table(name)
    return [
        *sources,
        *(tables.quarantine_table(each) for each in pipeline.sources),
        *(features, superseded(features), scores, superseded(scores)),
        tables.live_scores_table(name),
        tables.live_quarantine_table(name),
        tables.quality_table(name),
        tables.publications_table(name),
    ]


def meanings(pipeline: str) -> dict[str, str]:
    """Return what the columns of scores mean, by which views call theirs."""
    return {column.name: column.comment for column in tables.scores_table(pipeline).columns}


def _read(path: Path) -> View:
    """Read a view's file: comments on it, on its columns and its parameters, and a SELECT."""
    lines = path.read_text("utf-8").splitlines()
    head = list(takewhile(lambda line: line.startswith("--"), lines))
    columns = [found for line in head if (found := COLUMN.fullmatch(line))]
    given = [line.removeprefix(PARAMETERS).split(", ") for line in head if line.startswith(PARAMETERS)]
    said = [line.removeprefix("-- ") for line in head if not (COLUMN.fullmatch(line) or line.startswith(PARAMETERS))]
    return View(
        path.stem,
        " ".join(said),
        {found[1]: found[2] for found in columns},
        tuple(each for names in given for each in names),
        "\n".join(lines[len(head) :]),
    )
