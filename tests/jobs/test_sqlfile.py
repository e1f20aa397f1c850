"""SQL files: one SELECT, and nothing in it that could give another answer the second time."""

from pathlib import Path

import pytest
from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from jobs.errors import SqlRefused
from jobs.spec import load_pipeline, settings
from jobs.sqlfile import naming, pipeline_sql, read_sql
from jobs.sqlrules import Reads
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ("first(amount)", "first"),
        ("LAST(amount)", "last"),
        ("any_value(amount)", "any_value"),
        ("rand()", "rand"),
        ("uuid()", "uuid"),
        ("current_date()", "current_date"),
        ("CURRENT_TIMESTAMP", "current_timestamp"),
        ("now()", "now"),
        ("percentile_approx(amount, 0.5)", "percentile_approx"),
        ("approx_count_distinct(amount)", "approx_count_distinct"),
        ("nth_value(amount, 2) OVER (ORDER BY event_time)", "nth_value"),
        ("mode(amount)", "mode"),
        ("unix_timestamp()", "unix_timestamp"),
        ("getdate()", "getdate"),
        ("localtime()", "localtime"),
        ("user()", "user"),
        ("session_user()", "session_user"),
        ("histogram_numeric(amount, 3)", "histogram_numeric"),
        ("count_min_sketch(amount, 0.5, 0.5, 1)", "count_min_sketch"),
        ("kll_sketch_agg_bigint(amount)", "kll_sketch_agg_bigint"),
        ("theta_sketch_agg(amount)", "theta_sketch_agg"),
        ("hll_sketch_agg(amount)", "hll_sketch_agg"),
        ("reflect('java.util.UUID', 'randomUUID')", "reflect"),
        ("java_method('java.util.UUID', 'randomUUID')", "java_method"),
        ("listagg(amount, ',')", "listagg"),
        ("string_agg(amount)", "listagg"),
        ("stddev(amount)", "stddev"),
        ("sum(CAST(amount AS DOUBLE))", "sum"),
        ("avg(amount * 1.5e0)", "avg"),
        ("sum(CASE WHEN cds > 1 THEN double(amount) END)", "sum"),
        ("row_number() OVER (PARTITION BY key)", "row_number"),
        ("lag(amount) OVER w", "lag"),
        ("sum(amount) OVER (ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)", "sum"),
        ("collect_list(amount)", "collect_list"),
        ("size(collect_set(amount))", "collect_set"),
        ("monotonically_increasing_id()", "monotonically_increasing_id"),
    ],
)
def test_what_may_differ_is_refused_by_name(tmp_path: Path, call: str, name: str) -> None:
    path = tmp_path / "features.sql"
    path.write_text(f"SELECT key, as_of, {call} AS x FROM events GROUP BY key, as_of WINDOW w AS (PARTITION BY key)")
    with pytest.raises(SqlRefused, match=rf"features.sql: .*{name}.*\(\) is refused") as refused:
        read_sql(path)
    assert "use" in str(refused.value)


@pytest.mark.parametrize(
    "call",
    [
        "array_sort(collect_list(a))",
        "sort_array(collect_set(a) FILTER (WHERE a > 0))",
        "max(a)",
        "unix_timestamp(event_time)",
        "listagg(a, ',') WITHIN GROUP (ORDER BY a)",
        "mode() WITHIN GROUP (ORDER BY a)",
        "lag(a) OVER (PARTITION BY key ORDER BY a)",
        "lag(a) OVER w",
        "sum(a) OVER (PARTITION BY key)",
        "sum(CAST(CAST(a AS DOUBLE) AS DECIMAL(18, 3)))",
        "CAST(sum(a) AS DOUBLE) / 2",
        "count(e.user)",
        "`user`",
    ],
)
def test_what_is_ordered_is_taken(tmp_path: Path, call: str) -> None:
    path = tmp_path / "features.sql"
    path.write_text(f"SELECT key, {call} AS x FROM events AS e GROUP BY key WINDOW w AS (PARTITION BY key ORDER BY a)")
    assert read_sql(path).digest


@pytest.mark.parametrize("name", ["localtimestamp", "localtime", "USER", "current_time", "current_catalog"])
def test_what_needs_no_parentheses_is_refused_too(tmp_path: Path, name: str) -> None:
    path = tmp_path / "features.sql"
    path.write_text(f"SELECT key, {name} AS x FROM events")
    with pytest.raises(SqlRefused, match=f"{name.lower()} is refused: .*if it is a column, write its table before it"):
        read_sql(path)


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("events LIMIT 10", "LIMIT takes any rows"),
        ("events FETCH FIRST 3 ROWS ONLY", "FETCH takes any rows"),
        ("events ORDER BY a OFFSET 3", "OFFSET leaves out any rows"),
        ("events TABLESAMPLE (10 PERCENT)", "TABLESAMPLE depends on chance"),
        ("events VERSION AS OF 3", "AS OF reads another version"),
        ("delta.`lake/events/sales`", "read the views"),
        ("parquet.`files`", "read the views"),
        ("other.sales", "read the views"),
        ("read_files('x')", "read the views"),
        ("scores", "there is no view scores: read events, spine"),
        ("events JOIN (SELECT * FROM scores) USING (key)", "there is no view scores"),
    ],
)
def test_rows_come_from_the_views_alone_and_all_of_them(tmp_path: Path, rest: str, message: str) -> None:
    path = tmp_path / "features.sql"
    path.write_text(f"SELECT key FROM {rest}")
    with pytest.raises(SqlRefused, match=message):
        read_sql(path, Reads(frozenset({"events", "spine"})))


def test_common_tables_and_functions_that_make_rows_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "features.sql"
    path.write_text("WITH Seen AS (SELECT * FROM events) SELECT n FROM seen, range(3), EVENTS LATERAL VIEW explode(a)")
    assert read_sql(path, Reads(frozenset({"events"}))).digest


def test_a_sum_of_a_column_that_is_declared_double_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "features.sql"
    reads = Reads(frozenset({"events"}), frozenset({"kwh"}))
    path.write_text("SELECT SUM(e.kwh) AS kwh_28d FROM events e")
    with pytest.raises(SqlRefused, match=r"sum\(\) is refused: it adds doubles"):
        read_sql(path, reads)
    path.write_text("WITH e AS (SELECT CAST(kwh AS DECIMAL(9, 3)) AS kwh FROM events) SELECT SUM(e.kwh) AS x FROM e")
    assert read_sql(path, reads).digest


@pytest.mark.parametrize("text", ["SELECT 'a", "SELECT `a FROM events", "SELECT 1 /* and"])
def test_what_is_left_open_is_said(tmp_path: Path, text: str) -> None:
    path = tmp_path / "features.sql"
    path.write_text(text)
    with pytest.raises(SqlRefused, match=r"features\.sql: this is not Spark SQL: .*left open\?"):
        read_sql(path)


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "features.sql"
    path.write_bytes("SELECT 'é' AS key".encode("latin-1"))
    with pytest.raises(SqlRefused, match=r"features\.sql: this file is not UTF-8 text; save it as UTF-8"):
        read_sql(path)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT nope FROM VALUES (1) AS t(a)", "UNRESOLVED_COLUMN.WITH_SUGGESTION"),
        ("SELECT nope(a) FROM VALUES (1) AS t(a)", "UNRESOLVED_ROUTINE"),
        ("SELECT 1 / (a - 1) AS x FROM VALUES (1), (2) AS t(a)", r"DIVIDE_BY_ZERO.*SQLSTATE: 22012$"),
        ("SELECT (SELECT a FROM VALUES (1), (2) AS t(a)) AS x", "SCALAR_SUBQUERY_TOO_MANY_ROWS"),
        ("SELECT CAST(a AS INT) AS x FROM VALUES ('a') AS t(a)", "CAST_INVALID_INPUT"),
    ],
)
def test_what_spark_says_of_a_query_names_its_file(
    spark: SparkSession, tmp_path: Path, query: str, message: str
) -> None:
    with pytest.raises(SqlRefused, match=rf"features\.sql: \[{message}") as refused, naming(Path("features.sql")):
        spark.sql(query).write.parquet(str(tmp_path / "x"))
    assert len(str(refused.value).splitlines()) == 1
    assert "bypass" not in str(refused.value)


def test_what_its_author_cannot_mend_is_not_blamed_on_a_query(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    with pytest.raises(Py4JJavaError), naming(Path("features.sql")):
        spark.range(3).write.parquet(str(tmp_path / "a file" / "x"))


@pytest.mark.parametrize("text", ["SELECT 1; SELECT 2", "DROP TABLE events", "", "SELEC key FROM"])
def test_anything_but_one_select_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "features.sql"
    path.write_text(text)
    with pytest.raises(SqlRefused, match=r"features\.sql"):
        read_sql(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SqlRefused, match="does not exist: write it"):
        read_sql(tmp_path / "features.sql")


@pytest.mark.parametrize("kind", ["population", "features", "labels", "evaluation"])
def test_the_projects_own_sql_is_taken(kind: str) -> None:
    pipeline = load_pipeline(ROOT / "dags" / "pipelines", "purchase_propensity")
    assert pipeline_sql(settings(), pipeline, kind).text
