"""Nothing that grows with the population comes to the Spark driver: a day passes though it may take almost nothing."""

from collections.abc import Iterator
from typing import Any

import pytest
from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from jobs.ingest import ingest
from jobs.landing import days_between
from jobs.publication.publish import publish
from serving.store import Store
from tests.jobs.conftest import DAY
from tests.project import Project, purchases, scored
from tests.registered import register_small

POPULATION = 40_000
MOST = "200k"  # what the tasks of one job may send to the driver; a float and a hash of each customer are 480 KB


@pytest.fixture
def poor_driver(spark: SparkSession) -> Iterator[None]:
    """A driver that takes no more than MOST; the tasks' own accounts have room in it.

    Broadcasts pass through it too. Spark bounds them by its own threshold, so that here there are none.
    """
    conf: Any = spark.sparkContext._jsc.sc().conf()
    before = conf.get("spark.driver.maxResultSize", "1g"), str(spark.conf.get("spark.sql.autoBroadcastJoinThreshold"))
    conf.set("spark.driver.maxResultSize", MOST)
    spark.conf.set("spark.sql.autoBroadcastJoinThreshold", -1)
    yield
    conf.set("spark.driver.maxResultSize", before[0])
    spark.conf.set("spark.sql.autoBroadcastJoinThreshold", before[1])


def test_a_day_needs_nothing_of_the_population_on_the_driver(
    project: Project, store: Store, jobs_redis_url: str, poor_driver: None
) -> None:
    project.deliver(DAY, purchases(DAY, POPULATION))
    ingest(project.run(DAY), days_between(DAY, DAY))
    model = register_small(project.settings.mlflow_uri, project.folder / "report")
    run = scored(project, model, DAY)
    assert publish(run, jobs_redis_url) == "live"
    head = store.head("purchase_propensity")
    assert head is not None
    assert head.rows == POPULATION
    scores = project.lake.read("scores/purchase_propensity")
    with pytest.raises(Py4JJavaError, match="maxResultSize"):
        scores.select("key", "score").collect()
