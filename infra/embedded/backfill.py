"""A backfill by the scheduler, followed task by task."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path

from infra.embedded.errors import SchedulerFault
from infra.embedded.places import LOGS
from infra.embedded.programs import task_reason
from infra.embedded.progress import Step
from infra.embedded.scheduler import JSON, Scheduler

POLL_S = 1.0
PARSE_PATIENCE_S = 120.0
RUN_PATIENCE_S = 1800.0
QUIET = {None, "scheduled", "queued", "removed"}
ENDED = {"success", "failed"}


@dataclass
class Backfill:
    """The runs of one DAG for a range of days."""

    scheduler: Scheduler
    dag_id: str
    first: date
    last: date
    told: dict[tuple[str, str], str] = field(default_factory=dict)

    def prepare(self) -> None:
        """Wait until Airflow knows the DAG, end what was left at work, and let the DAG run.

        For a scheduler that the caller has just started: what is at work then was interrupted.

        Raises:
            SchedulerFault: the DAG does not appear.
        """
        deadline = time.monotonic() + PARSE_PATIENCE_S
        while not self.scheduler.knows(self.dag_id):
            if time.monotonic() > deadline:
                log = LOGS / "airflow-dag-processor.log"
                raise SchedulerFault(f"Airflow found no DAG {self.dag_id} in {PARSE_PATIENCE_S:.0f} s: see {log}")
            time.sleep(POLL_S)
        self.scheduler.cancel_backfills(self.dag_id)
        for run in self.scheduler.runs(self.dag_id):
            if self.covers(run) and run["state"] not in ENDED:
                self.scheduler.fail(self.dag_id, run["dag_run_id"])
        self.scheduler.unpause(self.dag_id)

    def follow(self, since: datetime, step: Step) -> list[JSON]:
        """Wait until every run of the range has ended that was queued after `since`; return the runs, oldest first.

        Raises:
            SchedulerFault: a run failed (the message names the task, why, and its log) or takes too long.
        """
        deadline = time.monotonic() + RUN_PATIENCE_S
        while time.monotonic() < deadline:
            runs = self.fresh(since)
            self.tell(runs, step)
            for run in runs:
                if run["state"] == "failed":
                    raise SchedulerFault(self.failure(run))
            if len(runs) == self.days and all(run["state"] == "success" for run in runs):
                return runs
            time.sleep(POLL_S)
        raise SchedulerFault(
            f"{self.dag_id} is not done after {RUN_PATIENCE_S:.0f} s: see {LOGS}/airflow-scheduler.log"
        )

    @property
    def days(self) -> int:
        """Return how many days the range has."""
        return (self.last - self.first).days + 1

    def fresh(self, since: datetime) -> list[JSON]:
        """Return the runs of the range that were queued after `since`, oldest interval first."""
        runs = [run for run in self.scheduler.runs(self.dag_id) if self.covers(run) and queued(run) >= since]
        return sorted(runs, key=lambda run: str(run["logical_date"]))

    def covers(self, run: JSON) -> bool:
        """Tell whether the run is for a day of the range."""
        return run["logical_date"] is not None and self.first <= day_of(run) <= self.last

    def tell(self, runs: list[JSON], step: Step) -> None:
        """Show what each task does, when that has changed, and how many are done."""
        done = total = 0
        for run in runs:
            tasks = self.scheduler.tasks(self.dag_id, run["dag_run_id"])
            total += len(tasks)
            done += sum(task["state"] == "success" for task in tasks)
            for task in sorted(tasks, key=lambda task: str(task["start_date"] or "9")):
                self.tell_task(day_of(run), task, step.note)
        if runs:
            step.reached(done, total * self.days // len(runs))

    def tell_task(self, day: date, task: JSON, note: Callable[[str], None]) -> None:
        """Show one task's state when it is news."""
        key, state = (str(day), task["task_id"]), task["state"]
        if state in QUIET or self.told.get(key) == state:
            return
        self.told[key] = state
        seconds = f" after {task['duration']:.1f} s" if state in ENDED and task["duration"] else ""
        note(f"{day} {task['task_id']}: {state}{seconds}")

    def failure(self, run: JSON) -> str:
        """Return which task failed, why, and where its log is."""
        for task in self.scheduler.tasks(self.dag_id, run["dag_run_id"]):
            if task["state"] == "failed":
                log = log_of(self.dag_id, run["dag_run_id"], task)
                return f"{self.dag_id} {day_of(run)}: task {task['task_id']} failed: {task_reason(log)}\n  see {log}"
        return f"{self.dag_id} {day_of(run)} failed before any task did: see {LOGS}/airflow-scheduler.log"


def day_of(run: JSON) -> date:
    """Return the day of a run's interval."""
    return datetime.fromisoformat(str(run["logical_date"])).date()


def queued(run: JSON) -> datetime:
    """Return when the run was queued last."""
    return datetime.fromisoformat(str(run["queued_at"]))


def log_of(dag_id: str, run_id: str, task: JSON) -> Path:
    """Return the log of a task's last attempt."""
    folder = LOGS / "airflow" / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={task['task_id']}"
    return folder / f"attempt={task['try_number']}.log"
