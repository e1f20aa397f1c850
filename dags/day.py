"""The day that a run scores: the day of its logical date, whoever started it."""

from datetime import UTC, date, datetime, time, timedelta

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


def is_of_many(context: Context) -> bool:
    """Return whether a run is for a range of days: its DAG asks for the first and the last one."""
    return "from" in context["dag"].params


def days_of(context: Context) -> tuple[datetime, datetime]:
    """Return the instants, UTC, at which the first and the last day of a run begin.

    Raises:
        RunRefused: it has no day, or the last one is before the first; the message names the parameter.
    """
    if not is_of_many(context):
        day = day_of(context)
        return day, day
    first, last = (_midnight(str(context["params"][name])) for name in ("from", "to"))
    if last < first:
        raise RunRefused(f"`to` {last:%Y-%m-%d} is before `from` {first:%Y-%m-%d}: trigger a run with these changed.")
    return first, last


def require_days(context: Context) -> None:
    """Refuse a run that has no days to score, or whose last one is not over.

    Raises:
        RunRefused: the message names the parameter.
    """
    _, last = days_of(context)
    if last + ONE_DAY > timezone.utcnow():
        remedy = "Trigger a run whose `to` is a day that is over." if is_of_many(context) else REMEDY
        raise RunRefused(f"The day to score, {last:%Y-%m-%d}, is not over. {remedy}")


def _midnight(day: str) -> datetime:
    return datetime.combine(date.fromisoformat(day), time(), UTC)
