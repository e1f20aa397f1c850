"""The sensor that waits for the file of a day, until its deadline."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

from airflow.sdk import BaseSensorOperator, Context, ObjectStoragePath, timezone

from dags.day import ONE_DAY, day_of
from dags.errors import LandingMissing

POKE_INTERVAL = timedelta(minutes=1)
SLACK = timedelta(hours=1)  # so that the deadline ends the wait, with its message, and never the sensor's timeout


class WaitForLanding(BaseSensorOperator):
    """Waits for a file that matches `pattern` under `root`; long past its deadline, it looks once.

    `pattern` is a glob with `{day}` in it; `root` is a folder or a URI that fsspec knows. Before `first_day` it waits
    for none. What counts as a file is what `ingest` reads: no folder, and no name that begins with _ or a dot.

    Raises:
        LandingMissing: the deadline, `deadline_hours` after the interval's end, is over; Airflow does not retry.
    """

    template_fields: Sequence[str] = ("root", "pattern")

    def __init__(self, *, root: str, pattern: str, first_day: date, deadline_hours: float, **kwargs: Any) -> None:
        self.grace = timedelta(hours=deadline_hours)
        super().__init__(mode="reschedule", poke_interval=POKE_INTERVAL, timeout=self.grace + SLACK, **kwargs)
        self.root = root
        self.pattern = pattern
        self.first_day = first_day

    def poke(self, context: Context) -> bool:
        """Return whether a file is there, or none is to come."""
        day = day_of(context)
        if day.date() < self.first_day:
            self.log.info("%s: no file before %s", self.pattern, self.first_day)
            return True
        pattern = self.pattern.replace("{day}", f"{day:%Y-%m-%d}")
        found = self._files(pattern)
        self.log.info("%s in %s: %s", pattern, self.root, ", ".join(found) or "nothing yet")
        if not found:
            self._require_time(pattern, context["logical_date"] + ONE_DAY + self.grace)
        return bool(found)

    def _files(self, pattern: str) -> list[str]:
        found = ObjectStoragePath(self.root).glob(pattern)
        return sorted(str(path) for path in found if path.name[0] not in "_." and path.is_file())

    def _require_time(self, pattern: str, deadline: datetime) -> None:
        if timezone.utcnow() < deadline:
            return
        raise LandingMissing(
            f"No file matches {pattern} in {self.root}, and its deadline {deadline:%Y-%m-%d %H:%M} UTC is over. "
            "Deliver the file (one with only a header is a day without events) and clear this task."
        )
