"""The tables in analysts' hands: each opens by the README's own lines, says what it holds, and is read in part."""

import csv
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from jobs.analysts.commands import sql
from jobs.analysts.connection import opened
from jobs.analysts.printed import cells
from jobs.analysts.script import statements
from jobs.analysts.stored import stored
from jobs.cli import cli
from jobs.spec import Settings
from tests.conftest import ROOT
from tests.jobs.cookbook import PAGE, Recipe, answer, lake_of_purchases, recipes
from tests.jobs.shop import NAME
from tests.project import Project

README = (ROOT / "README.md").read_text()
KIND = "scores.purchase_propensity"
SPARK_NAME = re.compile(r"delta\.\\`\$SCORELINE_LAKE/(.*?)\\`")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession, jobs_redis_url: str) -> Project:
    return lake_of_purchases(tmp_path_factory.mktemp("analysts") / "a project", spark, jobs_redis_url)


@pytest.fixture(scope="module")
def connection(project: Project) -> Iterator[duckdb.DuckDBPyConnection]:
    with opened(project.settings, [project.pipeline()]) as connection:
        yield connection


@pytest.fixture(scope="module")
def named(project: Project, spark: SparkSession) -> Iterator[SparkSession]:
    """The session's Spark with the names that the printed statements give."""
    made = list(statements(project.settings, [project.pipeline()]))
    for statement in made:
        spark.sql(statement)
    yield spark
    for statement in made:
        if statement.startswith("CREATE DATABASE"):
            spark.sql(f"DROP DATABASE IF EXISTS {statement.split()[-1]} CASCADE")


def names(project: Project) -> list[str]:
    return [".".join(table.names) for table in stored(project.settings, [project.pipeline()])]


def blocks(language: str) -> list[str]:
    """Return the README's code for analysts in a language."""
    section = README.split("## Analysts: query")[1].split("\n## ")[0]
    found = re.findall(r"^```(\w*)\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    return [code for own, code in found if own == language]


def test_there_is_each_kind_of_table(project: Project) -> None:
    assert {table.names[0] for table in stored(project.settings, [project.pipeline()]) if table.delta} == {
        "events", "quarantine", "features", "features_superseded", "scores", "scores_superseded", "scores_live",
        "quarantine_live", "quality", "publications",
    }  # fmt: skip


def test_every_column_says_what_it_means(project: Project) -> None:
    """Read back from Delta, of each table that the program made."""
    tables = [path.parent for path in Path(project.settings.lake).glob("*/*/_delta_log")]
    assert len(tables) == 10
    for table in tables:
        silent = [field.name for field in DeltaTable(table).schema().fields if not field.metadata.get("comment")]
        assert not silent, table


def test_every_name_says_what_it_and_its_columns_mean(connection: duckdb.DuckDBPyConnection) -> None:
    assert connection.sql("FROM columns WHERE coalesce(comment, '') = ''").fetchall() == []
    functions = connection.sql("SELECT \"table\" FROM columns WHERE type = 'function' ORDER BY 1").fetchall()
    assert functions == [(f"scores_at.{NAME}(moment)",), (f"scores_movers.{NAME}(date_before, date_after)",)]


def test_the_lines_in_python_open_every_table(project: Project) -> None:
    """The README's own, in a process that ends well, with the name of each table in place of theirs."""
    (code,) = blocks("python")
    body = [line for line in code.splitlines() if KIND in line]
    assert len(body) == 3
    lines = [code, *(_without_date(line.replace(KIND, name)) for name in names(project) for line in body)]
    done = _ran([sys.executable, "-c", "\n".join(lines)], project.settings)
    assert (done.returncode, done.stderr) == (0, "")


def _without_date(line: str) -> str:
    return line.replace(" WHERE as_of_date = '1998-06-02'", "")


def test_the_commands_open_every_table(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.analysts.settings", lambda: project.settings)
    commands = re.findall(r'^scoreline sql ("(.*)"( --at .*)?)$', "\n".join(blocks("")), re.MULTILINE)
    assert len(commands) == 3
    for _, query, rest in commands:
        done = CliRunner().invoke(cli, ["sql", query, *rest.split()])
        assert (done.exit_code, bool(list(csv.DictReader(done.stdout.splitlines())))) == (0, True), query
    for name in names(project):
        assert CliRunner().invoke(sql, [f"FROM {name}"]).exit_code == 0, name


def test_the_line_of_spark_opens_every_table(project: Project, spark: SparkSession) -> None:
    (line,) = re.findall(r'^spark-sql -e "(.*)"$', "\n".join(blocks("")), re.MULTILINE)
    for table in stored(project.settings, [project.pipeline()]):
        if table.delta:
            query = SPARK_NAME.sub(f"delta.`{table.path}`", line)
            assert spark.sql(re.sub(r"as_of_date, |GROUP BY 1", "", query)).collect()


def test_spark_has_the_same_names_and_comments(project: Project, named: SparkSession) -> None:
    for table in stored(project.settings, [project.pipeline()]):
        schema = named.table(".".join(table.names)).schema
        assert {field.name: field.metadata.get("comment") for field in schema} == table.comments


@pytest.mark.parametrize("recipe", recipes(PAGE.read_text()), ids=lambda recipe: recipe.question)
def test_the_page_tells_the_truth(connection: duckdb.DuckDBPyConnection, recipe: Recipe) -> None:
    """If it does not any more: `python -m tests.jobs.cookbook`."""
    assert answer(connection, recipe.sql) == recipe.answer


@pytest.mark.parametrize("recipe", recipes(PAGE.read_text()), ids=lambda recipe: recipe.question)
def test_spark_gives_the_same_answers(
    connection: duckdb.DuckDBPyConnection, named: SparkSession, recipe: Recipe
) -> None:
    found, wanted = named.sql(recipe.sql).toArrow(), connection.execute(recipe.sql)
    kinds = [str(column[1]) for column in wanted.description]
    rows = [tuple(row.values()) for row in found.to_pylist()]
    assert list(cells(rows, kinds)) == list(cells(wanted.fetchall(), kinds))


def test_ten_questions_are_answered() -> None:
    assert [bool(one.answer) for one in recipes(PAGE.read_text())] == [True] * 10


@pytest.mark.parametrize(
    "query",
    [
        f"SELECT key, score FROM scores.{NAME} WHERE as_of_date = '1998-06-02'",
        f"SELECT key FROM scores_history.{NAME} WHERE as_of_date = '1998-06-02' AND source = 'batch'",
        f"SELECT key FROM scores_movers.{NAME}('1998-06-02', '1998-06-02')",
        f"SELECT scores FROM scores_distribution.{NAME} WHERE as_of_date = '1998-06-02'",
    ],
)
def test_a_query_over_one_date_reads_no_file_of_another(project: Project, tmp_path: Path, query: str) -> None:
    """The files of the others are gone, which who asks for all dates finds."""
    lake = tmp_path / "lake"
    shutil.copytree(project.settings.lake, lake, ignore=shutil.ignore_patterns("as_of_date=1998-05-01", "staging"))
    settings = project.settings.model_copy(update={"lake": str(lake)})
    with opened(settings, [project.pipeline()]) as connection:
        assert connection.execute(query).fetchall()
        with pytest.raises((duckdb.Error, OSError), match="1998-05-01"):
            connection.execute(f"SELECT key FROM scores.{NAME}").fetchall()


def test_what_is_declared_and_not_yet_there_is_empty(project: Project, tmp_path: Path) -> None:
    """A new lake has no restated scores, and views over them work; older tables lack a column, which is NULL."""
    kept = tmp_path / "scores" / NAME
    shutil.copytree(Path(project.settings.lake) / "scores" / NAME, kept)
    with opened(project.settings.model_copy(update={"lake": str(tmp_path)}), [project.pipeline()]) as connection:
        count = f"SELECT count(*), count(*) FILTER (WHERE stood_until IS NULL) FROM scores_history.{NAME}"
        rows = connection.execute(count).fetchall()
        assert rows[0][0] == rows[0][1] > 0
        assert connection.execute("SELECT count(*) FROM quarantine.transactions").fetchall() == [(0,)]


def test_a_lake_without_tables_is_named(project: Project, tmp_path: Path) -> None:
    done = _ran([sys.executable, "-m", "jobs", "sql", "SELECT 1"], replace_lake(project.settings, tmp_path / "none"))
    assert done.returncode == 3
    assert "none has no table of a pipeline; set SCORELINE_LAKE" in done.stderr


def replace_lake(settings: Settings, lake: Path) -> Settings:
    return settings.model_copy(update={"lake": str(lake)})


def test_a_query_that_cannot_be_run_ends_with_one_line(project: Project) -> None:
    done = _ran([sys.executable, "-m", "jobs", "sql", "SELECT nothing FROM scores.nobody"], project.settings)
    assert done.returncode == 3
    assert "nobody does not exist" in done.stderr
    assert "`scoreline sql 'FROM columns'` lists what there is" in done.stderr.splitlines()[-1]


def _ran(command: list[str], settings: Settings) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={**os.environ, "SCORELINE_LAKE": settings.lake},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
