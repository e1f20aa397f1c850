"""What scores stood at a moment: the views against a history that is kept in plain Python, and against real runs."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import duckdb
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from jobs.analysts.connection import HERE, Shelf, opened
from jobs.analysts.dialect import DUCKDB
from jobs.analysts.script import statements
from jobs.ingest import ingest
from jobs.lake import Lake
from jobs.score import score
from jobs.spec import Pipeline, load_pipeline
from jobs.tables import live_scores_table, scores_table, superseded
from serving.clock import Clock
from tests.conftest import ROOT
from tests.jobs.conftest import DAY, FIRST
from tests.project import Project, purchases
from tests.registered import register_small

NAME = "purchase_propensity"
DATES = [date(1998, 6, 1), date(1998, 6, 2)]
BEGIN = datetime(1998, 6, 2, tzinfo=UTC)
HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
Rows = dict[str, str]  # the key's model, of which a score is made


@dataclass(frozen=True)
class Set:
    """The rows that a date has at a time, when they were written first, and when others replaced them."""

    rows: Rows
    scored_at: datetime | None
    superseded_at: datetime | None = None


@dataclass
class Date:
    """A date's partition, and what it has had: by `jobs/score.py`, in plain Python."""

    day: date
    now: Set | None = None
    before: list[Set] = field(default_factory=list)
    kept: bool = False  # by an attempt that was killed before it replaced anything
    stood: list[tuple[datetime, Rows]] = field(default_factory=list)

    def score(self, rows: Rows, at: datetime, *, told: bool) -> None:
        """Write rows, as a run does that says when if it is `told`: replaced are others, or fewer or more."""
        if self.now is not None and self.now.rows == rows:
            self.kept = False
            return
        begins = at if self.now else datetime(self.day.year, self.day.month, self.day.day, tzinfo=UTC)
        if self.now is not None:
            self._keep(at + 3 * SECOND)  # the clock is read again
            begins = max(one.superseded_at for one in self.before if one.superseded_at)
        self.now, self.kept = Set(rows, at if told else None), False
        self.stood.append((at if told else begins, rows))

    def killed(self, at: datetime) -> None:
        """End a restatement between its two writes."""
        if self.now is not None:
            self._keep(at)
            self.kept = True

    def _keep(self, at: datetime) -> None:
        if not self.kept and self.now is not None:
            self.before.append(replace(self.now, superseded_at=at))

    def at(self, moment: datetime) -> Rows:
        """Return what stood at a moment."""
        return next((rows for begun, rows in reversed(self.stood) if begun <= moment), {})


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """The views over empty tables of DuckDB's own."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for table in (scores_table(NAME), superseded(scores_table(NAME)), live_scores_table(NAME)):
            kind, name = table.name.split("/")
            columns = ", ".join(f"{DUCKDB.quoted(each.name)} {DUCKDB.type(each.type)}" for each in table.columns)
            connection.execute(f"CREATE SCHEMA {kind}; CREATE TABLE {kind}.{name} ({columns})")
        Shelf(connection, HERE).put_views([pipeline()])
        yield connection


def pipeline() -> Pipeline:
    return load_pipeline(ROOT / "dags/pipelines", NAME)


def fill(connection: duckdb.DuckDBPyConnection, dates: list[Date]) -> None:
    for kind in ("scores", "scores_superseded"):
        connection.execute(f"DELETE FROM {kind}.{NAME}")
    for one in dates:
        sets = [*one.before, *([one.now] if one.now else [])]
        for each in sets:
            kind, more = ("scores_superseded", [each.superseded_at]) if each.superseded_at else ("scores", [])
            as_of = datetime(one.day.year, one.day.month, one.day.day, tzinfo=UTC)
            shared = [as_of, one.day, "champion", NAME]
            told: list[object] = ["d", 1, {}, "r", each.scored_at, *more]
            rows = [[key, 0.5, *shared, model, *told] for key, model in each.rows.items()]
            connection.executemany(f"INSERT INTO {kind}.{NAME} VALUES ({', '.join('?' * len(rows[0]))})", rows)


def standing(connection: duckdb.DuckDBPyConnection, moment: datetime) -> dict[date, Rows]:
    """Return the rows that the view shows at a moment; that a key is there twice, fails."""
    found: dict[date, Rows] = {day: {} for day in DATES}
    query = f"SELECT as_of_date, key, model_version FROM scores_at.{NAME}(?)"
    for day, key, model in connection.execute(query, [moment]).fetchall():
        assert key not in found[day], (day, key, "stands twice")
        found[day][key] = model
    return found


POPULATION = st.sampled_from([("a", "b"), ("a", "b", "c"), ("b", "c")])
WRITES = st.tuples(
    st.sampled_from(DATES), st.sampled_from(["run", "run", "killed"]), POPULATION, st.sampled_from(["1", "2"])
)


@settings(max_examples=40, deadline=None)
@given(writes=st.lists(WRITES, max_size=7), untold=st.integers(0, 5))
def test_the_view_shows_what_stood(
    connection: duckdb.DuckDBPyConnection, writes: list[tuple[date, str, tuple[str, ...], str]], untold: int
) -> None:
    """Whatever is scored, again, otherwise, or killed half-way: also by runs that did not yet say when, at first."""
    dates = {day: Date(day) for day in DATES}
    for number, (day, how, keys, model) in enumerate(writes):
        at = BEGIN + (2 * number + 1) * HOUR
        if how == "run":
            dates[day].score(dict.fromkeys(keys, model), at, told=number >= untold)
        elif number >= untold:
            dates[day].killed(at)
    fill(connection, list(dates.values()))
    for number in range(len(writes) + 1):
        moment = BEGIN + 2 * number * HOUR
        assert standing(connection, moment) == {day: one.at(moment) for day, one in dates.items()}, moment


@dataclass(frozen=True)
class Past:
    """A project whose dates were scored again and again, and what its table had after each run."""

    project: Project
    snapshots: list[tuple[datetime, list[tuple[Any, ...]]]]


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> Past:
    project = Project(tmp_path_factory.mktemp("past") / "a project", spark)
    for day in (FIRST, DAY):
        project.deliver(day, purchases(day, 20))
    ingest(project.run(DAY), [FIRST, DAY])
    models = [register_small(project.settings.mlflow_uri, project.folder / "report", seed) for seed in (1, 2)]
    runs = [(FIRST, 0), (DAY, 0), (FIRST, 1), (FIRST, -1), (FIRST, 1), (FIRST, 0)]
    snapshots: list[tuple[datetime, list[tuple[Any, ...]]]] = [(BEGIN, [])]
    for number, (day, model) in enumerate(runs, 1):
        now = BEGIN + number * 2 * HOUR
        run = replace(project.run(day, f"run-{number}"), clock=Clock(now - datetime.now(UTC)))
        version = models[max(model, 0)]
        with pytest.MonkeyPatch.context() as patch:
            if model < 0:
                patch.setattr(Lake, "replace", _dies)
                with pytest.raises(KeyboardInterrupt):
                    score(run, version.version, version.digest)
            else:
                score(run, version.version, version.digest)
        snapshots.append((now + HOUR, _rows(project)))
    return Past(project, snapshots)


def _dies(*_: object) -> None:
    raise KeyboardInterrupt


def _rows(project: Project) -> list[tuple[Any, ...]]:
    """Return what the table has now, but for who wrote it: a rerun of the same rows does not count."""
    rows = DeltaTable(project.settings.table(f"scores/{NAME}")).to_pyarrow_table().to_pylist()
    return sorted((row["as_of_date"], row["key"], row["score"], row["model_version"]) for row in rows)


def test_what_real_runs_wrote_is_shown_as_it_stood(past: Past) -> None:
    """A date not scored yet, restated, half-way by a killed run, scored again alike, and restated back."""
    query = f"SELECT as_of_date, key, score, model_version FROM scores_at.{NAME}(?) ORDER BY 1, 2"
    with opened(past.project.settings, [past.project.pipeline()]) as connection:
        for moment, rows in past.snapshots:
            assert connection.execute(query, [moment]).fetchall() == rows, moment
    assert len({str(rows) for _, rows in past.snapshots}) == 4


def test_a_lake_of_the_past_has_the_tables_of_then(past: Past) -> None:
    moment, rows = past.snapshots[2]
    query = f"SELECT as_of_date, key, score, model_version FROM {{}}scores.{NAME} ORDER BY 1, 2"
    with opened(past.project.settings, [past.project.pipeline()], moment.replace(tzinfo=None)) as connection:
        assert connection.execute(query.format("")).fetchall() == rows
        assert connection.execute(query.format("now.")).fetchall() == past.snapshots[-1][1]
        assert connection.execute(f"SELECT count(*) FROM scores_superseded.{NAME}").fetchall() == [(0,)]
        latest = connection.execute(f"SELECT key, score FROM scores_latest.{NAME}").fetchall()
        assert sorted(latest) == [(key, value) for day, key, value, _ in rows if day == DAY + timedelta(days=1)]
        with pytest.raises(duckdb.CatalogException):
            connection.execute("SELECT * FROM events.transactions")


def test_spark_shows_the_same_past(past: Past, spark: SparkSession) -> None:
    made = list(statements(past.project.settings, [past.project.pipeline()]))
    try:
        for statement in made:
            spark.sql(statement)
        for moment, rows in past.snapshots[::3]:
            at = f"TIMESTAMP '{moment:%Y-%m-%d %H:%M:%S}'"
            found = spark.sql(f"SELECT as_of_date, key, score, model_version FROM scores_at.{NAME}({at})")
            assert sorted(map(tuple, found.collect())) == rows
    finally:
        for statement in made:
            if statement.startswith("CREATE DATABASE"):
                spark.sql(f"DROP DATABASE IF EXISTS {statement.split()[-1]} CASCADE")
