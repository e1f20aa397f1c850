"""The DAGs beside a pipeline's own: one looks after its stream, one keeps its tables in few files."""

from datetime import UTC, datetime, time, timedelta
from typing import Any

from airflow.sdk import DAG, CronTriggerTimetable

from dags.command import RunCommand
from dags.submit import submit
from jobs.spec import Pipeline

WATCH_CRON = "*/5 * * * *"
QUIET_CRON = "30 3 * * *"  # UTC
HOURLY_CRON = "30 * * * *"  # an hour of a stream leaves thousands of small files
WATCH_MINUTES = 10
WATCH = """
# Is the stream of {name} alive, and does it keep up?

A look every five minutes: `scoreline stream watch {name}`.

| The stream | Then |
|---|---|
| runs and keeps up, or was stopped by `scoreline stream stop {name}` | green, with a line of figures |
| is dead, or ended by itself | the command of `SCORELINE_STREAM_RESTART` has it started again; fails where there is \
none, or where the stream does not say within some minutes that it runs |
| runs, is behind, and has not gone on for {minutes} minutes (`stream.stuck_minutes`) | fails: the message says how \
far behind, since when, and what to do |

`make up` sets `SCORELINE_STREAM_RESTART`. Elsewhere it is a command that returns at once, without a shell, such as \
`systemctl start scoreline-stream@{{pipeline}}`. While this DAG is paused nobody starts a dead stream again; \
`scoreline_stream_...` of `/metrics` tells of it all the same.
"""
MAINTENANCE = """
# Few files for the tables of {name}

Once a day, or once an hour where a stream is declared, `scoreline maintain {name}`: what came in small appends \
(events, dimensions, what was quarantined, what the stream scored, what was measured, the ledger of generations) is \
put together in larger files, and so are the files of a date's scores and features. The rows stay what they are, and \
runs, readers and streams go on meanwhile. Files that no version of the last hours or days has are removed: six hours \
for what a stream appends to, a week for what was measured and the ledger, 30 days for all else. A stream keeps the \
log of its events short by itself.

For how long can a score be explained and computed again (`scoreline explain {name}`, `scoreline reproduce {name}`)? \
For ever, as long as its model is in the registry: what that needs are rows of the newest version of each table, also \
of scores and features that were replaced, and no row is ever removed but by an erasure. Old Delta versions, which \
this removes, are not needed for it.

A run that comes due while the last one goes on waits for it. Pipelines that share a source compact it one after the \
other where the pool `spark` has one slot; else the slower one of two at the same moment is told so and tries again.
"""


def watch_dag(pipeline: Pipeline) -> DAG:
    """Return the DAG that looks after a pipeline's stream."""
    minutes = pipeline.stream.stuck_minutes if pipeline.stream else 0
    page = WATCH.format(name=pipeline.name, minutes=minutes)
    with _dag(pipeline, "stream", WATCH_CRON, page) as dag:
        RunCommand(
            task_id="watch",
            arguments=["stream", "watch", pipeline.name],
            execution_timeout=timedelta(minutes=WATCH_MINUTES),
        )
    return dag


def maintenance_dag(pipeline: Pipeline) -> DAG:
    """Return the DAG that keeps a pipeline's tables in few files."""
    cron = HOURLY_CRON if pipeline.stream else QUIET_CRON
    with _dag(pipeline, "maintenance", cron, MAINTENANCE.format(name=pipeline.name)) as dag:
        submit("maintain", pipeline.name)
    return dag


def _dag(pipeline: Pipeline, what: str, cron: str, page: str) -> DAG:
    """Return an empty DAG; it has no end date, for data that end are served on."""
    schedule = pipeline.schedule
    defaults: dict[str, Any] = {
        "owner": pipeline.owner,
        "retries": 1,
        "retry_delay": timedelta(seconds=schedule.retry_delay_s),
        "execution_timeout": timedelta(minutes=schedule.timeout_minutes),
    }
    return DAG(
        dag_id=f"{pipeline.name}_{what}",
        description=next(line[2:] for line in page.splitlines() if line.startswith("# ")),
        doc_md=page,
        # About the moment of a run, and no interval.
        schedule=CronTriggerTimetable(cron, timezone="UTC"),
        start_date=datetime.combine(schedule.start_date, time.min, UTC),
        catchup=False,
        max_active_runs=1,
        tags=[*pipeline.tags, what],
        default_args=defaults,
        auto_register=False,
    )
