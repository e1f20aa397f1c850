"""What Airflow finds in the DAG folder, when the pipelines are right and when one is wrong."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
from airflow.models.dag import DagModel
from airflow.models.errors import ParseImportError
from airflow.sdk import Asset, CronTriggerTimetable
from airflow.serialization.serialized_objects import DagSerialization
from airflow.utils.session import create_session
from sqlalchemy import select

from dags.build import build
from dags.command import RunCommand
from jobs.spec import read_pipeline
from tests.project import with_stream

ROOT = Path(__file__).parents[2]
MAINTENANCE, WATCH = "purchase_propensity_maintenance", "purchase_propensity_stream"
SPAN = "purchase_propensity_backfill"
SHIPPED = ["purchase_propensity", SPAN, MAINTENANCE, WATCH]
CHAIN = ["resolve_model", "wait_for_transactions", "ingest", "score", "publish", "summarise"]


def found() -> BundleDagBag:
    folder = ROOT / "dags"
    return BundleDagBag(dag_folder=folder, bundle_path=folder, bundle_name="dags-folder")


def synchronise(bag: BundleDagBag) -> None:
    with create_session() as session:
        DagBundlesManager().sync_bundles_to_db(session=session)  # type: ignore[no-untyped-call]  # reason: Airflow gives it no types
    sync_bag_to_db(bag, "dags-folder", None)


def test_each_pipeline_is_a_dag_with_another_for_its_tables() -> None:
    bag = found()

    assert sorted(bag.dags) == SHIPPED
    assert bag.import_errors == {}


@pytest.fixture
def watched(project: Path) -> BundleDagBag:
    """What Airflow finds where the pipeline declares a stream."""
    path = project / "dags" / "pipelines" / "purchase_propensity.yaml"
    path.write_text(with_stream(path.read_text("utf-8"), "stream: {stuck_minutes: 7}"), "utf-8")
    return found()


def test_a_stream_has_a_dag_that_looks_after_it(watched: BundleDagBag) -> None:
    assert sorted(watched.dags) == SHIPPED
    (task,) = watched.dags[WATCH].tasks
    assert isinstance(task, RunCommand)
    assert task.arguments == ["stream", "watch", "purchase_propensity"]
    page = str(watched.dags[WATCH].doc_md)
    assert "has not gone on for 7 minutes" in page
    assert "scoreline-stream@{pipeline}`" in page


@pytest.mark.parametrize(("name", "period"), [(MAINTENANCE, timedelta(hours=1)), (WATCH, timedelta(minutes=5))])
def test_care_is_about_now_and_has_no_end(watched: BundleDagBag, name: str, period: timedelta) -> None:
    """Data that end are served on; and unpausing makes one run, for now, and none for the years before."""
    dag = watched.dags[name]
    assert (dag.catchup, dag.max_active_runs, dag.end_date) == (False, 1, None)
    assert {(task.owner, task.retries) for task in dag.tasks} == {("growth-data", 1)}
    scheduled = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag))
    before = datetime.now(UTC)

    run = scheduled.next_dagrun_info(last_automated_run_info=None)

    assert run
    assert before - period < run.run_after <= datetime.now(UTC)


def test_without_a_stream_tables_are_looked_after_once_a_day(project: Path) -> None:
    path = project / "dags" / "pipelines" / "purchase_propensity.yaml"
    path.write_text(with_stream(path.read_text("utf-8"), ""), "utf-8")

    timetable = found().dags[MAINTENANCE].timetable

    assert isinstance(timetable, CronTriggerTimetable)
    assert timetable.expression == "30 3 * * *"


def test_the_tasks_run_in_their_order() -> None:
    dag = found().dags["purchase_propensity"]

    tasks = dag.topological_sort()  # type: ignore[no-untyped-call]  # reason: Airflow gives it no types
    assert [task.task_id for task in tasks] == CHAIN
    assert [sorted(task.downstream_task_ids) for task in tasks] == [*([name] for name in CHAIN[1:]), []]


def test_a_range_of_days_is_three_spark_jobs_that_only_people_start() -> None:
    dag = found().dags[SPAN]

    tasks = dag.topological_sort()  # type: ignore[no-untyped-call]  # reason: as above
    assert [task.task_id for task in tasks] == ["resolve_model", "ingest", "backfill", "publish"]
    assert {task.pool for task in tasks[1:]} == {"spark"}
    assert dag.schedule is None
    assert dag.max_active_runs == 1
    assert dag.start_date == found().dags["purchase_propensity"].start_date


@pytest.mark.parametrize(
    ("dag_id", "names"),
    [
        ("purchase_propensity", ["restate", "model", "publish", "reason"]),
        (SPAN, ["from", "to", "restate", "model", "publish", "reason"]),
    ],
)
def test_each_parameter_has_a_title_and_a_description(dag_id: str, names: list[str]) -> None:
    params = found().dags[dag_id].params

    assert list(params) == names
    for name in names:
        param = params.get_param(name)
        assert param.schema["title"]
        assert param.description


@pytest.mark.parametrize("wrong", [{"model": "challenger"}, {"model": "0"}, {"publish": "yes"}, {"restate": "no"}])
def test_a_parameter_that_says_nothing_known_is_refused_by_airflow(wrong: dict[str, str]) -> None:
    dag = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(found().dags["purchase_propensity"]))

    with pytest.raises(ValueError, match=r"Invalid input for param"):
        dag.params.deep_merge(wrong).validate()


def test_declaration_reaches_the_dag() -> None:
    dag = found().dags["purchase_propensity"]

    assert dag.tags == {"propensity", "retail"}
    assert {task.owner for task in dag.tasks} == {"growth-data"}
    assert (str(dag.start_date), str(dag.end_date)) == ("1997-01-01 00:00:00+00:00", "1998-06-30 23:59:59.999999+00:00")
    assert not dag.catchup
    assert {(task.execution_timeout, task.retry_exponential_backoff) for task in dag.tasks} == {(timedelta(hours=1), 2)}
    assert {task.pool for task in dag.tasks if task.task_id in ("ingest", "score", "publish")} == {"spark"}


def test_the_page_says_which_days_can_run_and_what_airflow_must_have() -> None:
    page = str(found().dags["purchase_propensity"].doc_md)

    assert "transactions/date={day}/*.csv*" in page
    assert "any day that is over, from 1997-01-01 to 1998-06-30" in page
    assert "The data end on 1998-06-30" in page
    assert "airflow pools set spark 1" in page


def test_what_needs_redis_or_mlflow_outlasts_their_failover() -> None:
    dag = found().dags["purchase_propensity"]

    patient = {task.task_id: task for task in dag.tasks if task.retries != 2}
    assert sorted(patient) == ["publish", "resolve_model"]
    for task in patient.values():
        assert (task.retries, task.retry_delay, task.max_retry_delay) == (
            8,
            timedelta(seconds=30),
            timedelta(minutes=5),
        )


def test_a_start_that_is_still_to_come_is_waited_for(project: Path) -> None:
    declared = read_pipeline(project / "dags" / "pipelines" / "purchase_propensity.yaml")
    later = declared.schedule.model_copy(update={"start_date": date(2999, 1, 1), "end_date": None})

    dag = build(declared.model_copy(update={"schedule": later}))

    assert dag.start_date == datetime(2999, 1, 1, tzinfo=UTC)


def test_others_can_schedule_on_the_scores_and_the_publication() -> None:
    tasks = found().dags["purchase_propensity"].task_dict

    scores = Asset(name="purchase_propensity.scores", uri="x-scoreline://scores/purchase_propensity")
    publication = Asset(name="purchase_propensity.publication", uri="x-scoreline://publications/purchase_propensity")
    assert tasks["score"].outlets == [scores]
    assert (tasks["publish"].inlets, tasks["publish"].outlets) == ([scores], [publication])


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("retries: 2", "retries: many", "broken.yaml:{line}: schedule.retries: "),
        ("tags:", "tagged:", "broken.yaml:{line}: tagged: "),
        ('cron: "0 0 * * *"', 'cron: "99 99 * * *"', "broken.yaml:{line}: schedule.cron: "),
    ],
)
def test_a_wrong_pipeline_is_an_import_error_and_the_others_stay(
    project: Path, right: str, wrong: str, said: str
) -> None:
    text = (project / "dags" / "pipelines" / "purchase_propensity.yaml").read_text("utf-8")
    text = text.replace("  start_date:", "  retries: 2\n  start_date:").replace("purchase_propensity", "broken")
    text = text.replace(right, wrong)
    (project / "dags" / "pipelines" / "broken.yaml").write_text(text, "utf-8")
    line = next(number for number, content in enumerate(text.splitlines(), 1) if wrong in content)

    bag = found()
    synchronise(bag)

    assert sorted(bag.dags) == SHIPPED
    assert list(bag.import_errors) == ["refused.py"]
    assert said.format(line=line) in bag.import_errors["refused.py"]
    with create_session() as session:
        model = session.scalars(select(DagModel).where(DagModel.dag_id == "purchase_propensity")).one()
        assert not model.is_stale
        assert not model.has_import_errors


def test_a_mended_pipeline_clears_its_error(project: Path) -> None:
    broken = project / "dags" / "pipelines" / "broken.yaml"
    broken.write_text("name: broken\n", "utf-8")
    synchronise(found())
    broken.unlink()

    synchronise(found())

    with create_session() as session:
        assert session.scalars(select(ParseImportError)).all() == []
