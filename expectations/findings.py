"""What was found: the results of Great Expectations as records and as sentences."""

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

from expectations.errors import CheckBroken
from expectations.suites import Check, Suite

EXAMPLES = 5
LONGEST_EXAMPLE = 80


@dataclass(frozen=True)
class Measured:
    """One expectation's outcome, for the quality table.

    Attributes:
        column: The column, several joined by ", ", or "" for an expectation of the table.
        expected: What was expected, such as "min_value=0, mostly=0.95".
        severity: critical, warning or info; only critical ones stop what they guard.
        observed: The number of rows that break it (expectations of rows) or the number it is about (a mean, a count);
            None where that is no number.
        rows: The number of rows looked at; None for an expectation that is not of rows.
    """

    suite: str
    expectation: str
    column: str
    expected: str
    severity: str
    success: bool
    observed: float | None
    rows: int | None


@dataclass(frozen=True)
class Finding:
    """A check and what Great Expectations found of it."""

    check: Check
    result: Any  # an ExpectationValidationResult

    @property
    def success(self) -> bool:
        """Whether the rows are as expected."""
        return bool(self.result.success)

    @property
    def is_fatal(self) -> bool:
        """Whether the rows must not pass."""
        return self.check.is_critical and not self.success

    def measured(self, suite: Suite) -> Measured:
        """Return the outcome as a record."""
        check, found = self.check, self.result.result
        return Measured(
            suite=suite.name,
            expectation=check.type,
            column=", ".join(check.columns),
            expected=check.expected,
            severity=check.severity,
            success=self.success,
            observed=_number(found.get("unexpected_count", found.get("observed_value"))),
            rows=found.get("element_count"),
        )

    def sentence(self) -> str:
        """Say what was expected of which column, and what was found instead."""
        columns = f" on {', '.join(self.check.columns)}" if self.check.columns else ""
        return f"{self.check.type}({self.check.expected}){columns}: {self._found()}"

    def _found(self) -> str:
        found = self.result.result
        if "unexpected_count" not in found:
            return f"observed {found.get('observed_value')}"
        values = (_shown(value) for value in found.get("partial_unexpected_list", []) if value is not None)
        shown = ", ".join(dict.fromkeys(values))
        examples = f", such as {shown}" if shown else ""
        return f"{found['unexpected_count']} of {found['element_count']} rows{examples}"


def findings(checks: tuple[Check, ...], results: Any) -> list[Finding]:
    """Pair each check with its result, in the order of the suite.

    Raises:
        CheckBroken: There is not exactly one result for each check.
    """
    by_entry = _by_entry(results)
    if len(results) != len(checks) or by_entry.keys() != {check.entry for check in checks}:
        raise CheckBroken(
            f"Great Expectations gave {len(results)} results for {len(checks)} expectations, not one for each: "
            "run the task again"
        )
    return [Finding(check, by_entry[check.entry]) for check in checks]


def with_examples(found: list[Finding], results: Any) -> list[Finding]:
    """Add the examples of a second look; verdicts and counts stay those of the first, whatever the second saw."""
    by_entry = _by_entry(results)
    return [_with_examples(finding, by_entry.get(finding.check.entry)) for finding in found]


def _by_entry(results: Any) -> dict[int, Any]:
    return {result.expectation_config.meta["entry"]: result for result in results}


def _with_examples(finding: Finding, second: Any | None) -> Finding:
    if second is None:
        return finding
    result = copy(finding.result)
    result.result = {**second.result, **_without_examples(finding.result.result)}
    return replace(finding, result=result)


def _without_examples(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if not name.startswith("partial_")}


def exceptions(info: Any) -> Iterator[str]:
    """Find the messages in what Great Expectations keeps of exceptions: flat, or one level below a metric's id."""
    for key, value in (info or {}).items():
        if key == "exception_message" and value:
            yield " ".join(str(value).split())
        elif isinstance(value, dict):
            yield from exceptions(value)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _shown(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= LONGEST_EXAMPLE else f"{text[:LONGEST_EXAMPLE]}..."
