"""How tasks fail, as Airflow understands it.

AirflowException
├── JobFailed              a program failed; Airflow tries again
└── AirflowFailException   another attempt cannot help; Airflow fails the task at once
    ├── JobRefused         a program refused its data; the message is the program's own
    ├── RunRefused         the run has no day that can be scored
    └── LandingMissing     a file did not come before its deadline
"""

from airflow.sdk.exceptions import AirflowException, AirflowFailException

REASON = "scoreline: error: "
DATA_FAULT = 3


class JobFailed(AirflowException):
    """A program failed; another attempt may help."""


class JobRefused(AirflowFailException):
    """A program refused what it was given; another attempt gives the same."""


class RunRefused(AirflowFailException):
    """The run has no day to score, or one that is not over."""


class LandingMissing(AirflowFailException):
    """A file of the day did not come before its deadline."""


def failure(exit_code: int | None, reason: str) -> AirflowException:
    """Return the exception for a program that ended with `exit_code` and `reason`, its `scoreline: error:` line."""
    message = reason.removeprefix(REASON)
    if exit_code == DATA_FAULT:
        return JobRefused(message)
    return JobFailed(message)
