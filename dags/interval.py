"""The data interval of a run, which is the day that it scores."""

from datetime import datetime

from airflow.sdk import Context, timezone

from dags.errors import RunRefused

REMEDY = "Delete this run and trigger one with logical_date = 00:00 UTC of the day to score"


def interval_of(context: Context) -> tuple[datetime, datetime]:
    """Return start and end of the run's data interval.

    Raises:
        RunRefused: it has none; the message names the parameter to give.
    """
    start, end = context.get("data_interval_start"), context.get("data_interval_end")
    if start is None or end is None:
        raise RunRefused(f"This run has no data interval, so no day to score. {REMEDY}.")
    return start, end


def require_interval(context: Context) -> None:
    """Refuse a run that cannot be scored.

    Raises:
        RunRefused: its data interval is missing or not over, or begins at another instant than its logical_date, under
            which the scheduler would not know it again.
    """
    start, end = interval_of(context)
    if end > timezone.utcnow():
        raise RunRefused(f"The data interval {start} to {end} is not over. {REMEDY}, a day that is over.")
    if context["logical_date"] != start:
        raise RunRefused(f"logical_date {context['logical_date']} is not the start of {start} to {end}. {REMEDY}.")
