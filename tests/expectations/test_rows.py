"""A row is at fault exactly if Great Expectations counts it as unexpected."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from expectations.engine import BriefEngine
from expectations.errors import CheckBroken
from expectations.rows import RowRules
from expectations.suites import Check, Suite, load_suite

SCHEMA = "a double, b double, n int, s string, day date"
ROW = st.tuples(
    st.sampled_from([None, float("nan"), -1.0, 0.0, 1.0, 2.0, 1e300]),
    st.sampled_from([None, 0.0, 1.0, 2.0]),
    st.sampled_from([None, -1, 0, 1, 2, 3]),
    st.sampled_from([None, "", "1", "22", "x", "22 ", "é"]),
    st.dates(),
)

SUITE = """
- {type: expect_column_values_to_not_be_null, kwargs: {column: a}}
- {type: expect_column_values_to_not_be_null, kwargs: {column: s, mostly: 0.5}}
- {type: expect_column_values_to_be_null, kwargs: {column: s}}
- {type: expect_column_values_to_be_between, kwargs: {column: a, min_value: 0, max_value: 1}}
- {type: expect_column_values_to_be_between, kwargs: {column: a, min_value: 0, strict_min: true}}
- {type: expect_column_values_to_be_between, kwargs: {column: day, min_value: 1990-01-01, max_value: 2010-01-01}}
- {type: expect_column_values_to_be_in_set, kwargs: {column: n, value_set: [0, 1]}}
- {type: expect_column_values_to_be_in_set, kwargs: {column: s, value_set: ["1", "x"]}}
- {type: expect_column_values_to_not_be_in_set, kwargs: {column: n, value_set: [2, 3]}}
- {type: expect_column_values_to_match_regex, kwargs: {column: s, regex: '^[0-9]+$'}}
- {type: expect_column_values_to_not_match_regex, kwargs: {column: s, regex: '^[0-9]+$'}}
- {type: expect_column_value_lengths_to_be_between, kwargs: {column: s, min_value: 1, max_value: 1}}
- type: expect_column_values_to_be_between
  kwargs: {column: a, max_value: 0, row_condition: {type: pass_through, pass_through_filter: n > 0}}
- type: expect_column_values_to_not_be_null
  kwargs: {column: a, row_condition: {type: comparison, column: {name: n}, operator: '>', parameter: 0}}
- {type: expect_column_pair_values_a_to_be_greater_than_b, kwargs: {column_A: a, column_B: b}}
- type: expect_column_pair_values_a_to_be_greater_than_b
  kwargs: {column_A: a, column_B: b, or_equal: true, ignore_row_if: either_value_is_missing}
- {type: expect_column_pair_values_to_be_equal, kwargs: {column_A: a, column_B: b, ignore_row_if: neither}}
- type: expect_column_pair_values_to_be_equal
  kwargs: {column_A: a, column_B: b, ignore_row_if: both_values_are_missing}
- {type: expect_multicolumn_sum_to_equal, kwargs: {column_list: [b, n], sum_total: 2}}
- type: expect_select_column_values_to_be_unique_within_record
  kwargs: {column_list: [a, b, n], ignore_row_if: any_value_is_missing}
- {type: expect_select_column_values_to_be_unique_within_record, kwargs: {column_list: [b, n], ignore_row_if: never}}
"""


def row_faults(frame: DataFrame, suite: Suite) -> DataFrame:
    return RowRules.of(frame, suite).judged(frame)


def suite_of(folder: Path, text: str) -> Suite:
    path = folder / "rows.yaml"
    path.write_text(text.lstrip("\n"))
    return load_suite(path)


def counted_by_gx(frame: DataFrame, suite: Suite) -> dict[int, int]:
    results = BriefEngine(frame, suite.checks).judge()
    return {r.expectation_config.meta["line"]: r.result["unexpected_count"] or 0 for r in results}


def counted_by_rows(frame: DataFrame, suite: Suite) -> dict[int, int]:
    faults = [row.faults for row in row_faults(frame, suite).select("faults").collect()]
    return {check.line: sum(any(is_of(check, fault) for fault in row) for row in faults) for check in suite.checks}


def is_of(check: Check, fault: str) -> bool:
    return fault.startswith(f"{check.columns[0]}=") and fault.endswith(f" breaks {check.type}({check.expected})")


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROW, min_size=40, max_size=80))
def test_as_many_rows_are_at_fault_as_gx_counts(spark: SparkSession, tmp_path: Path, rows: list[tuple[object]]) -> None:
    suite = suite_of(tmp_path, SUITE)
    frame = spark.createDataFrame(rows, SCHEMA)
    assert counted_by_rows(frame, suite) == counted_by_gx(frame, suite)


def test_no_row_is_at_fault_where_there_is_none(spark: SparkSession, tmp_path: Path) -> None:
    assert row_faults(spark.createDataFrame([], SCHEMA), suite_of(tmp_path, SUITE)).collect() == []


def test_the_comparison_with_gx_is_about_something(spark: SparkSession, tmp_path: Path) -> None:
    day = F.to_date(F.lit("1800-01-01"))
    rows = [(None, None, 3, "x"), (float("nan"), 1.0, 1, None), (5.0, 5.0, 2, "22"), (-1.0, 2.0, 2, "1")]
    frame = spark.createDataFrame(rows, "a double, b double, n int, s string").withColumn("day", day)
    counts = counted_by_rows(frame, suite_of(tmp_path, SUITE))
    assert all(counts.values()), counts


def test_a_fault_says_the_value_and_what_was_expected(spark: SparkSession, tmp_path: Path) -> None:
    suite = suite_of(tmp_path, SUITE)
    frame = spark.createDataFrame([(0.5, 0.5, 1, "x")], "a double, b double, n int, s string")
    faults = row_faults(frame.withColumn("day", F.to_date(F.lit("2000-01-01"))), suite).first()
    assert faults is not None
    assert faults.faults[:2] == [
        "s=x breaks expect_column_values_to_be_null()",
        "s=x breaks expect_column_values_to_match_regex(regex=^[0-9]+$)",
    ]


def test_rows_keep_their_columns_and_only_critical_expectations_of_one_row_fault_them(
    spark: SparkSession, tmp_path: Path
) -> None:
    text = """
- {type: expect_column_values_to_be_unique, kwargs: {column: id}}
- {type: expect_compound_columns_to_be_unique, kwargs: {column_list: [id, id]}}
- {type: expect_column_values_to_be_null, kwargs: {column: id}, severity: warning}
- {type: expect_column_mean_to_be_between, kwargs: {column: id, max_value: -1}}
- {type: expect_table_row_count_to_be_between, kwargs: {min_value: 99}}
"""
    faulted = row_faults(spark.range(2).withColumn("id", F.lit(7)), suite_of(tmp_path, text))
    assert faulted.dtypes == [("id", "int"), ("faults", "array<string>")]
    assert [(row.id, row.faults) for row in faulted.collect()] == [(7, []), (7, [])]


def test_a_condition_that_cannot_be_is_refused_by_name(spark: SparkSession, tmp_path: Path) -> None:
    suite = suite_of(tmp_path, "- {type: expect_column_values_to_be_null, kwargs: {column: nowhere}}")
    with pytest.raises(CheckBroken, match=r'line 1: expect_column_values_to_be_null .* column "nowhere"'):
        row_faults(spark.range(1), suite)
