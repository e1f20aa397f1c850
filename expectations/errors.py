"""What the gate refuses, and why.

ExpectationsError              the rows did not pass; running it again cannot help (exit code 3), but for one of them
├── SuiteError                 a suite's file is wrong: file, line, field and what to write instead
│   └── SuiteMissing           there is no such file
├── ColumnUnknown              a suite names a column that the rows do not have
├── CheckBroken                an expectation could not be evaluated; running it again may help (exit code 1)
└── ExpectationsFailed         the rows are not what the suite expects
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from expectations.findings import Measured


class ExpectationsError(Exception):
    """The rows did not pass their gate. The message says what was wrong, where, and what to do."""

    exit_code = 3


class SuiteError(ExpectationsError):
    """A suite's file is wrong. The message names the file, the line, the field and what to write instead."""


class SuiteMissing(SuiteError):
    """There is no such suite: nothing passes a gate that was never written."""


class ColumnUnknown(ExpectationsError):
    """A suite names a column that the rows do not have."""


class CheckBroken(ExpectationsError):
    """An expectation could not be evaluated, so it is not known whether the rows hold it."""

    exit_code = 1


class ExpectationsFailed(ExpectationsError):
    """The rows are not what the suite expects.

    Attributes:
        report: The page that a person opens, or None where it could not be written.
        measured: The outcome of each expectation, for the quality table.
    """

    def __init__(self, message: str, report: Path | None, measured: "Sequence[Measured]" = ()) -> None:
        super().__init__(message)
        self.report = report
        self.measured = measured
