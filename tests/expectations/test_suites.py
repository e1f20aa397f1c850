"""Suites are read strictly: every mistake names the file, the line, the field and what to write instead."""

from pathlib import Path

import pytest

from expectations.errors import SuiteError, SuiteMissing
from expectations.suites import load_suite

SUITES = Path(__file__).parents[2] / "expectations" / "suites"

GOOD = """
- type: expect_column_values_to_be_between
  kwargs: {column: amount, min_value: 0, mostly: 0.95}
  severity: warning
  meta: {owner: shop}
- type: expect_column_pair_values_a_to_be_greater_than_b
  kwargs: {column_A: tenure, column_B: recency, or_equal: true}
- type: expect_table_row_count_to_be_between
  kwargs: {min_value: 1}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "sales.yaml"
    path.write_text(text.lstrip("\n"))
    return path


def test_a_suite_keeps_the_order_the_lines_and_the_words_of_its_file(tmp_path: Path) -> None:
    suite = load_suite(write(tmp_path, GOOD))
    assert suite.name == "sales"
    assert [check.line for check in suite.checks] == [1, 5, 7]
    assert [check.columns for check in suite.checks] == [("amount",), ("tenure", "recency"), ()]
    assert [check.expected for check in suite.checks] == ["min_value=0, mostly=0.95", "or_equal=true", "min_value=1"]
    assert [check.severity for check in suite.checks] == ["warning", "critical", "critical"]
    assert suite.checks[0].expectation.meta == {"owner": "shop", "line": 1, "entry": 0}
    assert [check.entry for check in suite.checks] == [0, 1, 2]


def test_a_missing_suite_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(SuiteMissing, match=r"nothing\.yaml: there is no such suite"):
        load_suite(tmp_path / "nothing.yaml")


NULL = "- type: expect_column_values_to_not_be_null\n  kwargs: {column: a}\n"
FLOW = "{type: expect_column_values_to_not_be_null, kwargs: {column: a}}"
BETWEEN = "- type: expect_column_values_to_be_between\n"


@pytest.mark.parametrize(
    ("text", "line", "field", "remedy"),
    [
        ("", 1, "suite", "write a list of entries"),
        ("type: expect_column_to_exist\n", 1, "suite", "write a list of entries"),
        (NULL + "- expect_column_to_exist\n", 3, "entry", "write 'type: expect_...'"),
        (NULL + "- kwargs: {column: a}\n", 3, "type", "None is no expectation: write expect_"),
        ("- type: expect_column_values_to_not_be_nul\n", 1, "type", "write expect_column_values_to_not_be_null"),
        (NULL + "  severty: warning\n", 3, "severty", "write severity"),
        (BETWEEN + "  kwargs:\n    column: a\n    min: 0\n", 4, "min", "write min_value"),
        (BETWEEN + "  kwargs:\n    column: a\n    result_format: SUMMARY\n", 4, "result_format", "write one of"),
        (
            BETWEEN + "  kwargs:\n    column: a\n    min_value: 0\n    mostly: 95\n",
            5,
            "mostly",
            "less than or equal to 1",
        ),
        (BETWEEN + "  kwargs: {min_value: 0}\n", 1, "column", "field required"),
        (
            BETWEEN + "  kwargs: {column: a, min_value: 2, max_value: 1}\n",
            2,
            "max_value",
            "write max_value >= min_value",
        ),
        (
            BETWEEN + "  kwargs: {column: a, min_value: 1, max_value: 0.5}\n",
            2,
            "max_value",
            "0.5 is below min_value 1: write max_value >= min_value",
        ),
        (BETWEEN + "  kwargs: {column: a, min_value: 1, max_value: '2'}\n", 2, "max_value", "write two numbers"),
        (BETWEEN + "  kwargs: {column: a, min_value: .nan}\n", 2, "min_value", "nothing compares with NaN"),
        (BETWEEN + "  kwargs: {column: a, min_value: 0, max_value: .NaN}\n", 2, "max_value", "write a number"),
        (NULL + "  meta: text\n", 3, "meta", "write 'meta: {owner: ...}'"),
        (BETWEEN + "  kwargs: {column: a}\n", 2, "min_value", "write min_value, max_value or both"),
        (NULL[:-2] + ", row_condition: a > 0}\n", 2, "row_condition", "{type: pass_through, "),
        (NULL[:-2] + ", row_condition: {typ: or}}\n", 2, "row_condition", "{type: pass_through, "),
        (BETWEEN + "  kwargs: [a]\n", 2, "kwargs", "write 'kwargs: {column: ...}'"),
        (NULL + "  severity: bad\n", 3, "severity", "critical"),
        (NULL + NULL, 3, "entry", "it repeats line 1: remove one of the two"),
        (f"[{FLOW}, {FLOW}]", 1, "entry", "it repeats line 1: remove one of the two"),
        ("- type: [\n", 2, "syntax", "write valid YAML"),
        ("- type: a\n  type: b\n", 2, "syntax", "duplicate key"),
    ],
)
def test_a_mistake_names_file_line_field_and_remedy(
    tmp_path: Path, text: str, line: int, field: str, remedy: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SuiteError) as caught:
        load_suite(path)
    message = str(caught.value)
    assert message.startswith(f"{path}, line {line}, {field}: ")
    assert remedy in message
    assert "\n" not in message


def test_every_suite_of_ours_loads() -> None:
    paths = sorted(SUITES.rglob("*.yaml"))
    assert {path.name for path in paths} >= {"transactions.yaml", "features.yaml", "scores.yaml"}
    assert all(load_suite(path).checks for path in paths)
