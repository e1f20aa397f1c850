"""What the tests of jobs share."""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from jobs.ingest import ingest
from jobs.landing import days_between
from jobs.publication.ledger import Ledger
from jobs.registry import ModelVersion
from jobs.run import Run
from jobs.tables import publications_table
from serving.clock import Clock
from serving.store import Store
from tests.jobs.sites import NAME, Site
from tests.project import Project, purchases, scored
from tests.registered import register_small

FIRST, DAY = date(1998, 5, 28), date(1998, 6, 1)
NEXT = DAY + timedelta(days=1)


@pytest.fixture
def project(tmp_path: Path, spark: SparkSession) -> Project:
    """An empty lake and landing folder, in a path with a space."""
    folder = tmp_path / "a project"
    folder.mkdir()
    return Project(folder, spark)


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> Project:
    """Six days of purchases by some 200 customers, ingested."""
    project = Project(tmp_path_factory.mktemp("scoring") / "a project", spark)
    for number, day in enumerate(days_between(FIRST, NEXT)):
        project.deliver(day, purchases(day, 40, first=1 + 30 * number))
    ingest(project.run(NEXT), days_between(FIRST, NEXT))
    return project


@pytest.fixture(scope="session")
def model(filled: Project) -> ModelVersion:
    return register_small(filled.settings.mlflow_uri, filled.folder / "report")


@pytest.fixture(scope="session")
def run(filled: Project, model: ModelVersion) -> Run:
    """The run of DAY, scored."""
    return scored(filled, model, DAY, "run-7")


@pytest.fixture(scope="session")
def next_run(filled: Project, model: ModelVersion) -> Run:
    """The run of the day after, scored."""
    return scored(filled, model, NEXT)


@pytest.fixture(scope="session")
def jobs_redis_url(redis_url: str) -> str:
    """A database of its own on the session's Redis."""
    return redis_url.removesuffix("/0") + "/3"


@pytest.fixture
def store(jobs_redis_url: str) -> Iterator[Store]:
    """The database, emptied."""
    with Store(jobs_redis_url) as store:
        store.ask("FLUSHDB")
        yield store


@pytest.fixture
def site(project: Project, store: Store) -> Site:
    """A ledger and a database without generations."""
    project.lake.create(publications_table(NAME))
    return Site(project.pipeline(), store, Ledger.of(project.settings, NAME, Clock()))
