"""The day that a run scores: the day of its logical date, whoever started it."""

from datetime import datetime, timedelta

from airflow.sdk import Context, timezone

from dags.errors import RunRefused

ONE_DAY = timedelta(days=1)
REMEDY = "Delete this run and trigger one with logical_date = 00:00 UTC of a day that is over, the day to score."


def day_of(context: Context) -> datetime:
    """Return the instant, UTC, at which the run's day begins; its as_of is one day later.

    For scheduled runs and backfills that is where the data interval begins. Not so for runs by hand: Airflow gives them
    the interval before their logical date, or, when its command line starts them, yesterday's real one.

    Raises:
        RunRefused: the run has no logical date; the message names the parameter.
    """
    logical_date = context.get("logical_date")
    if logical_date is None:
        raise RunRefused(f"This run has no logical_date, so no data interval and no day to score. {REMEDY}")
    return logical_date.replace(hour=0, minute=0, second=0, microsecond=0)


def require_day(context: Context) -> None:
    """Refuse a run that has no day to score, or one that is not over.

    Raises:
        RunRefused: the message names the parameter.
    """
    day = day_of(context)
    if day + ONE_DAY > timezone.utcnow():
        raise RunRefused(f"The day to score, {day:%Y-%m-%d}, is not over. {REMEDY}")
