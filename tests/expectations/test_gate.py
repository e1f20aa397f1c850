"""The gate lets rows pass that are as expected, and refuses all others with a message and a report."""

import logging
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from pyspark.sql import DataFrame, SparkSession

from expectations.engine import BriefEngine, validate
from expectations.errors import CheckBroken, ColumnUnknown, ExpectationsFailed, SuiteError, SuiteMissing
from expectations.findings import Measured, findings
from expectations.gate import Gate
from expectations.suites import Check

CONTEXT = {"pipeline": "shop", "as_of": "1998-06-02T00:00:00+00:00"}
SUITE = """
- type: expect_table_row_count_to_be_between
  kwargs: {min_value: 1}
- type: expect_column_values_to_be_between
  kwargs: {column: amount, min_value: 0, mostly: 0.9}
- type: expect_column_values_to_match_regex
  kwargs: {column: id, regex: '^[0-9]+$'}
  severity: warning
- type: expect_column_mean_to_be_between
  kwargs: {column: amount, max_value: 50}
"""


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "sales.yaml").write_text(SUITE.lstrip("\n"))
    return Gate(tmp_path / "suites", tmp_path / "reports")


def sales(spark: SparkSession, amounts: list[float | None], first: str = "1") -> DataFrame:
    rows = [(first if i == 0 else str(i), amount) for i, amount in enumerate(amounts)]
    return spark.createDataFrame(rows, "id string, amount double")


def test_good_rows_pass_and_every_expectation_is_measured(gate: Gate, spark: SparkSession, tmp_path: Path) -> None:
    measured = gate.check(sales(spark, [-1.0, *[11.0] * 9, None]), "sales", CONTEXT)
    assert measured[0] == Measured(
        suite="sales",
        expectation="expect_table_row_count_to_be_between",
        column="",
        expected="min_value=1",
        severity="critical",
        success=True,
        observed=11.0,
        rows=None,
    )
    assert [m.expectation.removeprefix("expect_column_") for m in measured[1:]] == [
        "values_to_be_between",
        "values_to_match_regex",
        "mean_to_be_between",
    ]
    assert [(m.observed, m.rows) for m in measured[1:]] == [(1.0, 11), (0.0, 11), (9.8, None)]
    assert not (tmp_path / "reports").exists()


def test_failed_rows_are_refused_with_counts_examples_and_a_report(
    gate: Gate, spark: SparkSession, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ExpectationsFailed) as caught:
        gate.check(sales(spark, [-7.5, -8.5, *[1.0] * 8]), "sales", CONTEXT)
    report = tmp_path / "reports" / "shop" / "sales" / "1998-06-02T00-00-00+00-00" / "index.html"
    told = (
        "expect_column_values_to_be_between(min_value=0, mostly=0.9) on amount: 2 of 10 rows, such as -7.5, -8.5; "
        f"report: {report}"
    )
    assert caught.value.report == report
    assert caught.value.exit_code == 3
    message = str(caught.value)
    assert message.startswith(
        "suite sales (pipeline shop, as_of 1998-06-02T00:00:00+00:00): 1 of 4 expectations failed"
    )
    assert told in message
    assert "\n" not in message
    assert str(tmp_path / "suites" / "sales.yaml") in message
    (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert line.startswith("suite sales ")
    assert line.endswith(told.partition("; report")[0])


def test_the_report_shows_all_expectations_and_what_broke_them(gate: Gate, spark: SparkSession) -> None:
    with pytest.raises(ExpectationsFailed) as caught:
        gate.check(sales(spark, [-7.5, 99.0, *[1.0] * 8, *[-8.5] * 5]), "sales", CONTEXT)
    assert caught.value.report is not None
    index = caught.value.report
    (link,) = re.findall(r"url=(validations/[^\"]+\.html)", index.read_text())
    page = (index.parent / unquote(link)).read_text()
    assert "-8.5" in page
    assert page.count("fas fa-times text-danger") == 2  # the suite, and the one expectation
    assert page.count("fas fa-check-circle text-success") == 3
    assert "mean must be less than or equal to" in page


def test_a_second_report_takes_the_place_of_the_first(gate: Gate, spark: SparkSession) -> None:
    for amount in (-1.0, -2.0):
        with pytest.raises(ExpectationsFailed) as caught:
            gate.check(sales(spark, [amount]), "sales", CONTEXT)
    assert caught.value.report is not None
    (page,) = (caught.value.report.parent / "validations").rglob("*.html")
    assert "-2.0" in page.read_text()


def test_at_most_five_examples_are_shown(gate: Gate, spark: SparkSession) -> None:
    with pytest.raises(ExpectationsFailed, match=r"8 of 8 rows, such as ((-\d\.0)(, )?){5};"):
        gate.check(sales(spark, [float(-i) for i in range(1, 9)]), "sales", CONTEXT)


def test_a_warning_is_logged_and_measured_but_stops_nothing(
    gate: Gate, spark: SparkSession, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    measured = gate.check(sales(spark, [1.0, 1.0], first="x1"), "sales", CONTEXT)
    assert [(m.severity, m.success, m.observed) for m in measured if not m.success] == [("warning", False, 1.0)]
    (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert "warning expect_column_values_to_match_regex(regex=^[0-9]+$) on id: 1 of 2 rows, such as x1" in line
    assert not (tmp_path / "reports").exists()


ONE_LINE = """
[{"type": "expect_column_values_to_be_null", "kwargs": {"column": "id"}},
{"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 1}}]
"""


def test_expectations_that_share_a_line_are_each_judged(gate: Gate, spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "suites" / "flow.yaml").write_text(ONE_LINE.replace("\n", " "))
    with pytest.raises(ExpectationsFailed, match=r"1 of 2 expectations failed: .* on id: 1 of 1 rows, such as 1;"):
        gate.check(sales(spark, [1.0]), "flow", CONTEXT)


def test_results_that_are_not_one_for_each_check_are_no_verdict(gate: Gate, spark: SparkSession) -> None:
    checks = gate.suite("sales").checks
    results = BriefEngine(sales(spark, [1.0]), checks[1:]).judge()
    with pytest.raises(CheckBroken, match="gave 3 results for 4 expectations"):
        findings(checks, results)


def test_rows_that_look_good_at_a_second_look_are_refused_by_the_first(
    gate: Gate, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changing(frame: DataFrame, checks: tuple[Check, ...], examples: int) -> Any:
        return validate(sales(spark, [1.0, 1.0]), checks, examples)

    monkeypatch.setattr("expectations.gate.validate", changing)
    with pytest.raises(ExpectationsFailed, match=r"on amount: 2 of 2 rows; report:") as caught:
        gate.check(sales(spark, [-1.0, -2.0]), "sales", CONTEXT)
    assert caught.value.report is not None
    (page,) = (caught.value.report.parent / "validations").rglob("*.html")
    assert page.read_text().count("fas fa-times text-danger") == 2  # the suite, and the one expectation


def test_each_suite_and_source_has_a_report_of_its_own(gate: Gate, spark: SparkSession, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / "suites" / folder).mkdir()
        (tmp_path / "suites" / folder / "x.yaml").write_text(SUITE.lstrip("\n"))
    tills = {"pipeline": "shop", "source": "tills", "day": "1998-06-01"}
    cases = [("a/x", CONTEXT), ("b/x", CONTEXT), ("sales", tills), ("sales", {**tills, "source": "web"})]
    reports = []
    for name, context in cases:
        with pytest.raises(ExpectationsFailed, match=f"suite {name} ") as caught:
            gate.check(sales(spark, [-1.0]), name, context)
        reports.append(caught.value.report)
    assert len({*reports}) == len(cases)
    assert all(report is not None and report.is_file() for report in reports)


@pytest.mark.parametrize("fault", [RuntimeError("no template"), OSError("disk full")], ids=["renderer", "disk"])
def test_what_failed_is_told_before_a_report_is_tried(
    gate: Gate, spark: SparkSession, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def broken(*_: object) -> None:
        assert "1 of 1 rows, such as -1.0" in caplog.text
        raise fault

    monkeypatch.setattr("expectations.gate.write_report", broken)
    with pytest.raises(ExpectationsFailed, match=f"report: none, because .*{fault}"):
        gate.check(sales(spark, [-1.0]), "sales", CONTEXT)


def test_a_report_that_cannot_be_written_hides_nothing(gate: Gate, spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "reports").write_text("in the way")
    with pytest.raises(ExpectationsFailed, match=r"1 of 1 rows, such as -1.0; report: none, because") as caught:
        gate.check(sales(spark, [-1.0]), "sales", CONTEXT)
    assert caught.value.report is None


def test_a_missing_or_wrong_suite_lets_nothing_pass(gate: Gate, spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(SuiteMissing, match=r"nothing\.yaml"):
        gate.check(spark.range(1).toDF("id"), "nothing", CONTEXT)
    (tmp_path / "suites" / "empty.yaml").write_text("[]")
    with pytest.raises(SuiteError, match="it expects nothing"):
        gate.check(spark.range(1).toDF("id"), "empty", CONTEXT)


def test_an_unknown_column_is_named_with_those_that_there_are(gate: Gate, spark: SparkSession) -> None:
    with pytest.raises(
        ColumnUnknown, match=r"sales\.yaml, line 3: there is no column amount .* write one of id, value"
    ):
        gate.check(spark.createDataFrame([("1", 2.0)], "id string, value double"), "sales", CONTEXT)


def test_an_expectation_that_cannot_be_evaluated_is_no_verdict(gate: Gate, spark: SparkSession, tmp_path: Path) -> None:
    text = "- {type: expect_column_values_to_match_regex, kwargs: {column: id, regex: '(['}}"
    (tmp_path / "suites" / "broken.yaml").write_text(text)
    with pytest.raises(
        CheckBroken, match=r"broken\.yaml, line 1: expect_column_values_to_match_regex could not"
    ) as caught:
        gate.check(sales(spark, [1.0]), "broken", CONTEXT)
    assert caught.value.exit_code == 1


def test_a_check_prints_nothing(gate: Gate, spark: SparkSession, capfd: pytest.CaptureFixture[str]) -> None:
    frame = sales(spark, [-1.0])
    capfd.readouterr()
    with pytest.raises(ExpectationsFailed):
        gate.check(frame, "sales", CONTEXT)
    assert capfd.readouterr() == ("", "")


def test_good_rows_take_few_spark_jobs_however_many_the_expectations(
    gate: Gate, spark: SparkSession, tmp_path: Path
) -> None:
    bounds = "- {{type: expect_column_values_to_be_between, kwargs: {{column: amount, max_value: {}}}}}\n"
    (tmp_path / "suites" / "long.yaml").write_text(SUITE + "".join(bounds.format(n) for n in range(100, 130)))
    frame = sales(spark, [1.0] * 100)
    spark.sparkContext.setJobGroup("good rows", "")
    assert len(gate.check(frame, "long", CONTEXT)) == 34
    assert 1 <= len(spark.sparkContext.statusTracker().getJobIdsForGroup("good rows")) <= 8
