"""The gate: rows that are not what their suite expects go no further."""

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, NoReturn

from great_expectations.validator.validation_statistics import calc_validation_statistics
from pyspark.sql import DataFrame

from expectations.each import Groups, validate_each
from expectations.engine import BriefEngine, validate
from expectations.errors import CheckBroken, ColumnUnknown, ExpectationsFailed
from expectations.findings import EXAMPLES, Finding, Measured, exceptions, findings, with_examples
from expectations.report import write_report
from expectations.suites import Suite, load_suite

logger = logging.getLogger(__name__)


class Gate:
    """Checks frames against the suites of a folder.

    Args:
        suites_dir: Folder of the suites; `name` becomes `<suites_dir>/<name>.yaml`.
        reports_dir: Folder of the reports, `<reports_dir>/<pipeline>/<suite>/<the rest of the context>/index.html`:
            `shop/sales/1998-06-01` or, for rows of a source, `shop/sales/tills-1998-06-01`.
    """

    def __init__(self, suites_dir: Path, reports_dir: Path) -> None:
        self._suites_dir = suites_dir
        self._reports_dir = reports_dir

    def suite(self, name: str) -> Suite:
        """Read a suite.

        Raises:
            SuiteMissing: There is no such file.
            SuiteError: The file is wrong.
        """
        return replace(load_suite(self._suites_dir / f"{name}.yaml"), name=name)

    def check(self, frame: DataFrame, name: str, context: Mapping[str, str]) -> list[Measured]:
        """Let the rows pass, or raise; expectations of lower severity than critical are measured and logged only.

        The frame is read several times, so it must be cheap and repeatable: staged files, not a plan.

        Args:
            frame: The rows.
            name: The suite's name, which is its path under the folder of suites without `.yaml`.
            context: What the rows are, for messages and the report's place: `pipeline`, `as_of` or `day`, and what else
                tells them apart, such as `source`. Equal contexts share one report.

        Raises:
            SuiteMissing, SuiteError: See `suite`.
            ColumnUnknown: The suite names a column that the rows do not have.
            CheckBroken: An expectation could not be evaluated.
            ExpectationsFailed: A critical expectation does not hold; a report was written, or the message says why not.
        """
        suite = self.suite(name)
        _require_columns(frame, suite)
        results = BriefEngine(frame, suite.checks).judge()
        _require_evaluated(suite, results)
        found = findings(suite.checks, results)
        if not all(finding.success for finding in found):
            found, result = _with_details(frame, found)
            self._judge(suite, found, result, context)
        return [finding.measured(suite) for finding in found]

    def check_each(self, frame: DataFrame, name: str, groups: Groups) -> dict[date, list[Measured]]:
        """Let the rows of each date pass as `check` would if they were alone, or raise for the first that do not.

        All rows are of these dates. The frame is read a few times for all of them, and as often again for each that
        does not hold all there is to hold. Raises what `check` raises.
        """
        if len(groups.contexts) == 1:
            return {as_of: self.check(frame, name, context) for as_of, context in groups.contexts.items()}
        suite, judged = self.suite(name), {}
        _require_columns(frame, suite)
        for as_of, results in validate_each(frame, suite.checks, groups):
            _require_evaluated(suite, results)
            found = findings(suite.checks, results)
            if all(finding.success for finding in found):
                judged[as_of] = [finding.measured(suite) for finding in found]
            else:  # with all details
                judged[as_of] = self.check(groups.of(frame, as_of), name, groups.contexts[as_of])
        return judged

    def _judge(self, suite: Suite, found: list[Finding], result: Any, context: Mapping[str, str]) -> None:
        for finding in found:
            if not finding.success and not finding.is_fatal:
                logger.warning("%s: %s %s", _title(suite, context), finding.check.severity, finding.sentence())
        if any(finding.is_fatal for finding in found):
            self._refuse(suite, found, result, context)

    def _refuse(self, suite: Suite, found: list[Finding], result: Any, context: Mapping[str, str]) -> NoReturn:
        fatal = [finding.sentence() for finding in found if finding.is_fatal]
        for sentence in fatal:
            logger.error("%s: %s", _title(suite, context), sentence)
        report, where = self._report(suite, result, context)
        raise ExpectationsFailed(
            f"{_title(suite, context)}: {len(fatal)} of {len(found)} expectations failed: {'; '.join(fatal)}; "
            f"report: {where}; correct the data and run the task again, or, if they are right, correct {suite.path}",
            report,
            [finding.measured(suite) for finding in found],
        )

    def _report(self, suite: Suite, result: Any, context: Mapping[str, str]) -> tuple[Path | None, str]:
        folder = self._reports_dir / context.get("pipeline", "") / suite.name / _label(context)
        try:
            report = write_report(folder, suite, result, dict(context))
        except Exception as error:  # noqa: BLE001  reason: a full disk, a fault of GX's pages: what was found comes first
            return None, f"none, because it could not be written ({type(error).__name__}: {error})"
        return report, str(report)


def _title(suite: Suite, context: Mapping[str, str]) -> str:
    return f"suite {suite.name} ({', '.join(f'{key} {value}' for key, value in context.items())})"


def _label(context: Mapping[str, str]) -> str:
    values = [value for key, value in context.items() if key != "pipeline"]
    return re.sub(r"[^\w.+-]", "-", "-".join(values)) or "latest"


def _require_columns(frame: DataFrame, suite: Suite) -> None:
    for check in suite.checks:
        for column in check.columns:
            if column not in frame.columns and check.type != "expect_column_to_exist":
                raise ColumnUnknown(
                    f"{suite.path}, line {check.line}: there is no column {column} in the rows of suite {suite.name}: "
                    f"write one of {', '.join(frame.columns)}"
                )


def _require_evaluated(suite: Suite, results: Any) -> None:
    for found in results:
        for message in exceptions(found.exception_info):
            config = found.expectation_config
            raise CheckBroken(
                f"{suite.path}, line {config.meta['line']}: {config.type} could not be evaluated: {message}: "
                "correct it, or run the task again if Spark failed"
            )


def _with_details(frame: DataFrame, found: list[Finding]) -> tuple[list[Finding], Any]:
    """Ask again, with examples, for what failed alone: each example is a Spark job. Return the suite's result too."""
    result = validate(frame, tuple(finding.check for finding in found if not finding.success), examples=EXAMPLES)
    detailed = with_examples(found, result.results)
    result.results = [finding.result for finding in detailed]
    result.success = False
    result.statistics = calc_validation_statistics(result.results)._asdict()
    return detailed, result
