"""When runs are made: at the end of each data interval, and by hand for the interval that starts at logical_date."""

from airflow.exceptions import AirflowTimetableInvalid
from airflow.plugins_manager import AirflowPlugin
from airflow.timetables.base import DataInterval, TimeRestriction, Timetable
from airflow.timetables.interval import CronDataIntervalTimetable
from pendulum import DateTime


class IntervalTimetable(CronDataIntervalTimetable):
    """Airflow's own, but a run by hand gets the interval that starts at its logical_date, as every other run does.

    Airflow's gives it the interval before. Such a run takes the logical_date of another day's run, which the scheduler
    then silently leaves out as "run already exists".
    """

    def infer_manual_data_interval(self, *, run_after: DateTime) -> DataInterval:
        """Return the interval that `run_after`, a logical_date, is in."""
        before = super().infer_manual_data_interval(run_after=run_after)
        restriction = TimeRestriction(earliest=None, latest=None, catchup=True)
        found = self.next_dagrun_info(last_automated_data_interval=before, restriction=restriction)
        if found is None or found.data_interval is None:
            raise AirflowTimetableInvalid(f"{self.summary} has no interval at {run_after}")
        return found.data_interval


class ScorelinePlugin(AirflowPlugin):
    """Makes the timetable known to every part of Airflow."""

    name = "scoreline"
    timetables: list[type[Timetable]] = [IntervalTimetable]  # noqa: RUF012  # Airflow's attribute
