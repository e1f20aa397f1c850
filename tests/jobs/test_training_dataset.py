"""The training set: one row for each row of the spine, whatever the SQL does, and labels that are labels."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession

from jobs.errors import FrameFault, SqlRefused
from jobs.spec.pipeline import LabelRef
from jobs.sqlfile import SqlFile
from jobs.training import dataset
from jobs.training.dataset import Period, Queries
from jobs.training.split import Split

FIRST = datetime(1998, 1, 1, tzinfo=UTC)
DATES = tuple(FIRST + timedelta(days=100 * number) for number in range(3))
PARTS = Split(DATES[:1], DATES[1:2], DATES[2:])
EVALUATION = "SELECT key, as_of, x AS recency_days FROM features"
LABELS = "SELECT key, as_of, CAST(CAST(key AS INT) % 2 AS INT) AS label FROM spine"


@pytest.fixture(scope="module")
def spine(spark: SparkSession) -> DataFrame:
    rows = [(f"{number:03d}", as_of) for number in range(60) for as_of in DATES]
    return spark.createDataFrame(rows, "key string, as_of timestamp").cache()


def queries(evaluation: str = EVALUATION, labels: str = LABELS) -> Queries:
    texts = {"population": "", "features": "", "labels": labels, "evaluation": evaluation}
    return Queries(**{kind: SqlFile(Path(f"{kind}.sql"), text) for kind, text in texts.items()})


def collected(spine: DataFrame, seen: DataFrame, given: Queries) -> Mapping[str, Period]:
    events = spine.selectExpr("key AS customer_id")
    found = dataset.evaluated(seen, given) | dataset.labelled(seen, events, given, LabelRef(horizon_days=60))
    return dataset.collect(dataset.joined(spine, {"features.sql": seen, **found}), ("x",), PARTS)


def with_x(spine: DataFrame) -> DataFrame:
    return spine.selectExpr("key", "as_of", "CAST(key AS DOUBLE) AS x")


def test_each_row_of_the_spine_is_there_once_and_in_order(spine: DataFrame) -> None:
    periods = collected(spine, with_x(spine), queries())
    for part, dates in PARTS.parts.items():
        assert set(periods[part].as_of) == {np.datetime64(day.replace(tzinfo=None)) for day in dates}
        assert periods[part].matrix[:, 0].tolist() == periods[part].recency.tolist() == list(range(60))
        assert periods[part].labels.tolist() == [number % 2 for number in range(60)]


@pytest.mark.parametrize(
    ("evaluation", "labels", "message"),
    [
        (f"{EVALUATION} WHERE key <> '007'", LABELS, r"evaluation\.sql gave 0 rows for key 007 at 1998-01-01"),
        (f"{EVALUATION} UNION ALL {EVALUATION}", LABELS, r"evaluation\.sql gave 2 rows for key 000 at 1998-01-01"),
        (EVALUATION, f"{LABELS} WHERE as_of > '1998-02-01'", r"labels\.sql gave 0 rows for key 000 .*; give one"),
        (EVALUATION, f"{LABELS} UNION ALL {LABELS}", r"labels\.sql gave 2 rows for key 000"),
        (EVALUATION, LABELS.replace("% 2", "% 3"), r"labels\.sql gave the label 2 for key 002 at .*; give 0 or 1"),
        (EVALUATION, LABELS.replace("% 2", "- 9"), "the label -9 for key 000"),
        (EVALUATION, LABELS.replace("key AS INT", "NULLIF(key, '004') AS INT"), "the label NULL for key 004"),
        (EVALUATION, LABELS.replace("key, as_of,", "as_of,"), r"labels\.sql gives no key, but as_of, label"),
    ],
)
def test_what_changes_the_training_set_is_refused(spine: DataFrame, evaluation: str, labels: str, message: str) -> None:
    with pytest.raises(FrameFault, match=message):
        collected(spine, with_x(spine), queries(evaluation, labels))


def test_features_and_population_give_each_row_once(spine: DataFrame) -> None:
    with pytest.raises(FrameFault, match=r"features\.sql gave 0 rows for key 059"):
        collected(spine, with_x(spine).where("key < '059'"), queries())
    twice = spine.union(spine.where("key = '003'"))
    with pytest.raises(FrameFault, match=r"population\.sql gave 2 rows for key 003"):
        collected(twice, with_x(spine), queries())


def test_a_query_that_spark_refuses_is_named(spine: DataFrame) -> None:
    with pytest.raises(SqlRefused, match=r"evaluation\.sql: \[UNRESOLVED_COLUMN"):
        collected(spine, with_x(spine), queries(evaluation=EVALUATION.replace("x AS", "y AS")))


@pytest.mark.parametrize(("rows", "least", "most"), [(dataset.MAX_ROWS, 180, 180), (10**12, 0, 30)])
def test_a_large_spine_is_sampled_by_key(spine: DataFrame, rows: int, least: int, most: int) -> None:
    assert least <= dataset.sampled(spine, rows).count() <= most


def test_the_largest_spine_keeps_some_keys(spark: SparkSession) -> None:
    spine = spark.range(20_000).selectExpr("CAST(id AS STRING) AS key", f"TIMESTAMP'{date(1998, 1, 1)}' AS as_of")
    assert 5 <= dataset.sampled(spine, 10**12).count() <= 60
