"""From the declaration of a pipeline to its DAG."""

from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

from airflow.sdk import DAG, BaseOperator, CronDataIntervalTimetable, chain, timezone
from airflow.sdk.exceptions import AirflowException

from dags.assets import publication_asset, scores_asset
from dags.care import maintenance_dag, watch_dag
from dags.command import RunCommand
from dags.docs import describe
from dags.landing import WaitForLanding
from dags.params import CHOICES, PUBLISH, RESTATE
from dags.patience import patience
from dags.resolve import RESOLVED, resolve_model
from dags.span import backfill_dag
from dags.submit import submit
from jobs.errors import SpecError
from jobs.spec import Pipeline, Source, pipeline_files, read_pipeline, settings

DAY = ["--day", "{{ logical_date | ds }}", "--run-id", "{{ run_id }}"]
LONGEST_RETRY_DELAY = timedelta(hours=1)


def build_all(folder: Path) -> tuple[dict[str, DAG], list[str]]:
    """Return the DAGs of the pipelines that `folder` declares, by id, and what is wrong with the others."""
    built: dict[str, DAG] = {}
    refused: list[str] = []
    for path in pipeline_files(folder):
        try:
            built |= {dag.dag_id: dag for dag in dags_of(read_pipeline(path))}
        except SpecError as error:
            refused.append(str(error))
        except (AirflowException, ValueError) as error:
            refused.append(f"{path}: Airflow refuses this pipeline: {error}")
    return built, refused


def dags_of(pipeline: Pipeline) -> list[DAG]:
    """Return the DAG of a pipeline, the one for ranges of days, and those that look after its stream and its tables.

    Raises:
        AirflowException: Airflow refuses what is declared, such as the schedule.
    """
    span = backfill_dag(pipeline, _task_defaults(pipeline), first_instant(pipeline))
    return [build(pipeline), span, maintenance_dag(pipeline), *([watch_dag(pipeline)] if pipeline.stream else [])]


def build(pipeline: Pipeline) -> DAG:
    """Return the DAG of a pipeline; its id is the pipeline's name.

    Raises:
        AirflowException: Airflow refuses what is declared, such as the schedule.
    """
    schedule = pipeline.schedule
    dag = DAG(
        dag_id=pipeline.name,
        description=pipeline.description,
        doc_md=describe(pipeline),
        schedule=CronDataIntervalTimetable(schedule.cron, timezone="UTC"),
        start_date=first_instant(pipeline),
        end_date=_instant(schedule.end_date, time.max) if schedule.end_date else None,
        catchup=False,
        max_active_runs=schedule.max_active_runs,
        tags=list(pipeline.tags),
        params=CHOICES,
        default_args=_task_defaults(pipeline),
        auto_register=False,
    )
    with dag:
        chain(*_tasks(pipeline))
    dag.validate()  # type: ignore[no-untyped-call]  # reason: Airflow's, without types
    return dag


def first_instant(pipeline: Pipeline) -> datetime:
    """Return the first logical date that a run may have: the first day of the events, so that any past day can run.

    Airflow ends a run by hand before a DAG's `start_date` as a success without tasks. As `catchup` is off, an early one
    makes no run by itself; but one that is still to come is what the scheduler has to wait for.
    """
    start = _instant(pipeline.schedule.start_date, time.min)
    if start > timezone.utcnow():
        return start
    return min(start, _instant(pipeline.events[1].first_day, time.min))


def _task_defaults(pipeline: Pipeline) -> dict[str, object]:
    schedule = pipeline.schedule
    return {
        "owner": pipeline.owner,
        "retries": schedule.retries,
        "retry_delay": timedelta(seconds=schedule.retry_delay_s),
        "retry_exponential_backoff": 2.0,
        "max_retry_delay": LONGEST_RETRY_DELAY,
        "execution_timeout": timedelta(minutes=schedule.timeout_minutes),
    }


def _tasks(pipeline: Pipeline) -> list[BaseOperator | list[BaseOperator]]:
    name = pipeline.name
    scores, publication = scores_asset(name), publication_asset(name)
    return [
        resolve_model(pipeline),
        [_wait(source_name, source) for source_name, source in pipeline.sources.items()],
        submit("ingest", name, *DAY),
        submit("score", name, *DAY, *RESOLVED, RESTATE, outlets=[scores]),
        submit("publish", name, *DAY, *PUBLISH, inlets=[scores], outlets=[publication], **patience(pipeline)),
        RunCommand(task_id="summarise", arguments=["summary", name, *DAY]),
    ]


def _wait(name: str, source: Source) -> WaitForLanding:
    return WaitForLanding(
        task_id=f"wait_for_{name}",
        root=settings().landing,
        pattern=source.landing,
        first_day=source.first_day,
        deadline_hours=source.deadline_hours,
    )


def _instant(day: date, at: time) -> datetime:
    return datetime.combine(day, at, UTC)
