"""Every spark-submit of a run, rendered by Airflow itself from a run in its database."""

import os
from copy import copy
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from uuid import UUID

import psutil
import pytest
import structlog
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
from airflow.models.dagrun import DagRun
from airflow.models.xcom import XComModel
from airflow.sdk import DAG
from airflow.sdk.api.datamodels._generated import TaskInstance as TaskInstanceDTO
from airflow.sdk.execution_time.supervisor import (
    InProcessSupervisorComms,
    InProcessTestSupervisor,
    set_supervisor_comms,
)
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.serialization.serialized_objects import DagSerialization
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, TaskInstanceState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from pendulum import DateTime

from dags.submit import SubmitJob

ROOT = Path(__file__).parents[2]
SNAPSHOTS = Path(__file__).parent / "snapshots"
# Airflow's own in-process API server talks to itself through it.
pytestmark = pytest.mark.filterwarnings("ignore:Using .httpx. with .starlette.testclient.")
SPAN = "purchase_propensity_backfill"
MODEL = {"name": "purchase_propensity", "version": "7", "digest": "a1b2c3"}


@pytest.fixture(scope="module")
def bag() -> BundleDagBag:
    folder = ROOT / "dags"
    bag = BundleDagBag(dag_folder=folder, bundle_path=folder, bundle_name="dags-folder")
    with create_session() as session:
        DagBundlesManager().sync_bundles_to_db(session=session)  # type: ignore[no-untyped-call]  # reason: Airflow gives it no types
    sync_bag_to_db(bag, "dags-folder", None)
    return bag


@pytest.fixture(scope="module")
def dag(bag: BundleDagBag) -> DAG:
    return bag.dags["purchase_propensity"]


@pytest.fixture(scope="module")
def run(dag: DAG) -> DagRun:
    created = run_by_hand(dag, DateTime(1998, 6, 3, tzinfo=UTC))
    resolve(created)
    return created


def resolve(created: DagRun) -> None:
    """Let a run have resolved its model."""
    resolved = partial(XComModel.set, dag_id=created.dag_id, task_id="resolve_model", run_id=created.run_id)
    resolved("return_value", MODEL, serialize=False)


def run_by_hand(dag: DAG, day: DateTime, **conf: object) -> DagRun:
    """Return a run for a day, as Airflow's command line makes it: with yesterday's real data interval."""
    scheduled = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag))
    return scheduled.create_dagrun(
        run_id=f"manual__{day:%Y-%m-%d}T00:00:00+00:00",
        logical_date=day,
        data_interval=scheduled.timetable.infer_manual_data_interval(run_after=DateTime.now(UTC)),
        run_after=day,
        run_type=DagRunType.MANUAL,
        triggered_by=DagRunTriggeredByType.TEST,
        state=DagRunState.RUNNING,
        conf=conf,
    )


def rendered(dag: DAG, run: DagRun, task_id: str) -> SubmitJob:
    """Return the task as a worker has it just before it executes."""
    with create_session() as session:
        row = run.get_task_instance(task_id, session=session)
        assert row
        row.set_state(TaskInstanceState.QUEUED, session=session)
        what = TaskInstanceDTO(
            id=UUID(str(row.id)),
            task_id=task_id,
            dag_id=dag.dag_id,
            run_id=run.run_id,
            try_number=row.try_number,
            map_index=-1,
            dag_version_id=UUID(str(row.dag_version_id)),
        )
    task = copy(dag.get_task(task_id))  # rendering writes into it
    assert isinstance(task, SubmitJob)
    supervisor = InProcessTestSupervisor(
        id=what.id,
        pid=os.getpid(),
        process=psutil.Process(),
        process_log=structlog.get_logger(),
        client=InProcessTestSupervisor._api_client(dag),  # type: ignore[no-untyped-call]  # reason: Airflow gives it no types
    )
    supervisor.comms = InProcessSupervisorComms(supervisor=supervisor)
    with set_supervisor_comms(supervisor.comms):
        server = supervisor.client.task_instances.start(what.id, os.getpid(), datetime.now(UTC))
        instance = RuntimeTaskInstance.model_construct(
            **what.model_dump(exclude_unset=True), task=task, _ti_context_from_server=server
        )
        instance.render_templates(instance.get_template_context())
    return task


def command_of(task: SubmitJob) -> str:
    """Return the task's command, an argument a line."""
    command = task._get_hook()._build_spark_submit_command(task.application)
    return "\n".join(command).replace(str(ROOT), "<project>") + "\n"


@pytest.mark.parametrize("task_id", ["ingest", "score", "publish"])
def test_command(dag: DAG, run: DagRun, task_id: str) -> None:
    assert command_of(rendered(dag, run, task_id)) == (SNAPSHOTS / f"{task_id}.txt").read_text("utf-8")


def test_command_of_maintenance(bag: BundleDagBag) -> None:
    dag = bag.dags["purchase_propensity_maintenance"]
    run = run_by_hand(dag, DateTime(2026, 6, 3, tzinfo=UTC))

    assert command_of(rendered(dag, run, "maintain")) == (SNAPSHOTS / "maintain.txt").read_text("utf-8")


def test_a_run_may_force_its_publication_and_says_why(dag: DAG) -> None:
    reason = "it's right; the {{ shops }} closed"
    told = {"publish": "force", "reason": reason}
    task = rendered(dag, run_by_hand(dag, DateTime(1998, 6, 4, tzinfo=UTC), **told), "publish")

    words = task._get_hook()._build_spark_submit_command(task.application)[-3:]
    assert words == ["--publish", "force", f"--reason={reason}"]


def test_a_run_may_restate(dag: DAG) -> None:
    """As `airflow backfill create --dag-run-conf` makes it: the parameters are the run's configuration."""
    created = run_by_hand(dag, DateTime(1998, 6, 5, tzinfo=UTC), restate=True)
    resolve(created)
    task = rendered(dag, created, "score")

    assert task._get_hook()._build_spark_submit_command(task.application)[-1] == "--restate"


@pytest.fixture(scope="module")
def span(bag: BundleDagBag) -> DagRun:
    told = {"from": "1998-05-01", "to": "1998-05-30", "model": "7"}
    created = run_by_hand(bag.dags[SPAN], DateTime(2026, 6, 1, tzinfo=UTC), **told)
    resolve(created)
    return created


@pytest.mark.parametrize("task_id", ["ingest", "backfill", "publish"])
def test_command_of_a_range(bag: BundleDagBag, span: DagRun, task_id: str) -> None:
    command = command_of(rendered(bag.dags[SPAN], span, task_id)).replace(span.run_id, "<run>")

    assert command == (SNAPSHOTS / f"{SPAN}.{task_id}.txt").read_text("utf-8")


def test_snapshots_cover_every_spark_submit(bag: BundleDagBag) -> None:
    submits = {
        f"{SPAN}.{task.task_id}" if dag.dag_id == SPAN else task.task_id
        for dag in bag.dags.values()
        for task in dag.tasks
        if isinstance(task, SubmitJob)
    }

    assert submits == {path.stem for path in SNAPSHOTS.iterdir()}


def test_a_day_before_the_schedule_has_all_tasks(dag: DAG) -> None:
    """The demo's data begin long before the schedule: Airflow makes tasks for such a day, and not a green nothing."""
    created = run_by_hand(dag, DateTime(1998, 5, 20, tzinfo=UTC))

    with create_session() as session:
        tasks = created.get_task_instances(session=session)
    assert {task.task_id for task in tasks} == set(dag.task_ids)


def test_a_day_after_the_end_has_none_as_the_page_says(dag: DAG) -> None:
    """Should Airflow learn to refuse such a run, the DAG's page has a warning too many."""
    created = run_by_hand(dag, DateTime(1998, 7, 15, tzinfo=UTC))

    with create_session() as session:
        assert created.get_task_instances(session=session) == []
