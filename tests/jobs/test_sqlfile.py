"""SQL files: one SELECT, and nothing in it that could give another answer the second time."""

from pathlib import Path

import pytest

from jobs.errors import SqlRefused
from jobs.sqlfile import read_sql
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
        ("collect_list(amount)", "collect_list"),
        ("size(collect_set(amount))", "collect_set"),
        ("monotonically_increasing_id()", "monotonically_increasing_id"),
    ],
)
def test_what_may_differ_is_refused_by_name(tmp_path: Path, call: str, name: str) -> None:
    path = tmp_path / "features.sql"
    path.write_text(f"SELECT key, as_of, {call} AS x FROM events GROUP BY key, as_of")
    with pytest.raises(SqlRefused, match=rf"features.sql: .*{name}.*\(\) is refused") as refused:
        read_sql(path)
    assert "use" in str(refused.value)


@pytest.mark.parametrize(
    "call", ["array_sort(collect_list(a))", "sort_array(collect_set(a) FILTER (WHERE a > 0))", "max(a)"]
)
def test_what_is_ordered_is_taken(tmp_path: Path, call: str) -> None:
    path = tmp_path / "features.sql"
    path.write_text(f"SELECT key, {call} AS x FROM events GROUP BY key")
    assert read_sql(path).digest


@pytest.mark.parametrize("text", ["SELECT 1; SELECT 2", "DROP TABLE events", "", "SELEC key FROM"])
def test_anything_but_one_select_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "features.sql"
    path.write_text(text)
    with pytest.raises(SqlRefused, match=r"features\.sql"):
        read_sql(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SqlRefused, match="does not exist: write it"):
        read_sql(tmp_path / "features.sql")


@pytest.mark.parametrize("name", ["population", "features", "labels"])
def test_the_projects_own_sql_is_taken(name: str) -> None:
    assert read_sql(ROOT / "jobs" / "sql" / "purchase_propensity" / f"{name}.sql").text
