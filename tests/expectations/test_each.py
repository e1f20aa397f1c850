"""Dates judged in one pass: each as it would be alone, to the number."""

from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession

from expectations.each import Groups
from expectations.errors import ExpectationsFailed
from expectations.gate import Gate

DATES = [date(1998, 6, day) for day in (1, 2, 3)]
SUITE = """
- {type: expect_table_row_count_to_be_between, kwargs: {min_value: 0, max_value: 5}}
- {type: expect_column_values_to_not_be_null, kwargs: {column: key}}
- {type: expect_compound_columns_to_be_unique, kwargs: {column_list: [key, as_of]}}
- {type: expect_column_values_to_be_unique, kwargs: {column: key}}
- {type: expect_column_values_to_be_between, kwargs: {column: n, min_value: 0, max_value: 50, mostly: 0.5}}
- {type: expect_column_pair_values_a_to_be_greater_than_b, kwargs: {column_A: m, column_B: n, or_equal: true}}
- {type: expect_column_mean_to_be_between, kwargs: {column: n, min_value: 0, max_value: 100}, severity: warning}
- {type: expect_column_value_z_scores_to_be_less_than, kwargs: {column: m, threshold: 1.1, double_sided: true},
   severity: warning}
- {type: expect_column_median_to_be_between, kwargs: {column: m, min_value: 0}, severity: warning}
"""


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    (tmp_path / "suite.yaml").write_text(SUITE)
    (tmp_path / "counts.yaml").write_text("\n".join(SUITE.splitlines()[:7]))
    return Gate(tmp_path, tmp_path / "reports")


@pytest.fixture(scope="module")
def frame(spark: SparkSession) -> DataFrame:
    """Two dates with the same keys, of which one breaks what it may; and a third without rows."""
    rows = [
        ("a", DATES[0], 1, 2.0), ("b", DATES[0], 60, 61.0), ("c", DATES[0], 3, 900.0), ("d", DATES[0], 4, 5.0),
        ("a", DATES[1], 7, 8.0), ("b", DATES[1], None, 9.0), ("c", DATES[1], 9, 9.0),
    ]  # fmt: skip
    stamped = [(key, datetime(day.year, day.month, day.day, tzinfo=UTC), n, m) for key, day, n, m in rows]
    return spark.createDataFrame(stamped, "key string, as_of timestamp, n int, m double").localCheckpoint()


def contexts(dates: list[date]) -> dict[date, dict[str, str]]:
    return {each: {"pipeline": "shop", "day": str(each)} for each in dates}


@pytest.mark.parametrize(("suite", "dates"), [("suite", DATES[:2]), ("counts", DATES)])
def test_each_date_is_measured_as_it_would_be_alone(
    gate: Gate, frame: DataFrame, suite: str, dates: list[date]
) -> None:
    """Also one without rows, of which Great Expectations can give no median, but says that nothing is wrong."""
    groups = Groups("as_of", contexts(dates))
    together = gate.check_each(frame, suite, groups)
    alone = {each: gate.check(groups.of(frame, each), suite, groups.contexts[each]) for each in dates}
    assert together == alone
    assert [one.observed for one in together[DATES[0]]][4] == 1


def test_a_date_that_does_not_pass_is_refused_in_its_own_words(gate: Gate, frame: DataFrame) -> None:
    twice = frame.unionAll(frame.where("key = 'b' AND to_date(as_of) = '1998-06-02'")).localCheckpoint()
    groups = Groups("as_of", contexts(DATES[:2]))
    with pytest.raises(ExpectationsFailed) as alone:
        gate.check(groups.of(twice, DATES[1]), "suite", groups.contexts[DATES[1]])
    with pytest.raises(ExpectationsFailed) as together:
        gate.check_each(twice, "suite", groups)
    assert str(together.value) == str(alone.value)
    assert "day 1998-06-02): 2 of 9 expectations failed" in str(together.value)
