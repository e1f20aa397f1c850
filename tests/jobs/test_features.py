"""What every pipeline's SQL is given and must give back, and when a row of a dimension is valid."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession

from jobs.errors import FrameFault
from jobs.features import counted_once, features, labels, population, with_validity
from jobs.session import MEANING

START = datetime(1998, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
SNAPSHOTS = "valid_from timestamp, station string, model string, size int, day date, source_file string"
# What each key's snapshot of a day says; several files may say it.
DELIVERIES = st.dictionaries(
    st.tuples(st.sampled_from("ABC"), st.integers(0, 6)),
    st.tuples(st.sampled_from(["x", "y", None]), st.integers(1, 2), st.integers(1, 3)),
    max_size=21,
)


def test_what_a_query_means_is_no_clusters_choice(spark: SparkSession) -> None:
    assert {key: spark.conf.get(key) for key in MEANING} == MEANING
    assert {"spark.sql.ansi.enabled", "spark.sql.decimalOperations.allowPrecisionLoss"} <= MEANING.keys()


def test_a_fault_of_sql_is_raised_and_not_logged_too(spark: SparkSession, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AnalysisException, match="nope"):
        spark.sql("SELECT nope FROM range(1)")
    assert "nope" not in capfd.readouterr().err


def test_an_event_counts_once_as_it_arrived_first(spark: SparkSession) -> None:
    """Also where it came with other content, or in one file twice; one id of two keys is two events.

    What never arrived is not what arrived first.
    """
    schema = "customer_id string, event_id string, arrived_at timestamp, amount int"
    live, filed = START + timedelta(hours=9), START + DAY
    rows = [
        ("a", "1", live, 10),
        ("a", "1", filed, 11),
        ("a", "2", filed, 7),
        ("a", "2", filed, 7),
        ("b", "1", filed, 5),
        ("b", "1", None, 6),
        ("c", "1", None, 6),
    ]
    for order in (rows, rows[::-1]):
        once = counted_once(spark.createDataFrame(order, schema), "customer_id").toArrow().to_pylist()
        assert sorted(tuple(row.values()) for row in once) == [
            ("a", "1", live, 10),
            ("a", "2", filed, 7),
            ("b", "1", filed, 5),
        ]


@pytest.fixture
def events(spark: SparkSession) -> DataFrame:
    return spark.createDataFrame([(7, START)], "id bigint, event_time timestamp")


@pytest.fixture
def spine(spark: SparkSession) -> DataFrame:
    return spark.createDataFrame([("7", START)], "key string, as_of timestamp")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("id AS key, as_of", r"population.sql: key is bigint; write CAST\(... AS STRING\) AS key"),
        ("'a' AS key, CAST(as_of AS DATE) AS as_of", r"as_of is date; write CAST\(... AS TIMESTAMP\) AS as_of"),
        ("'a' AS customer, as_of", "population.sql gives no key, but customer, as_of"),
        ("'a' AS key", "population.sql gives no as_of, but key"),
    ],
)
def test_a_population_of_another_shape_is_refused(events: DataFrame, columns: str, message: str) -> None:
    with pytest.raises(FrameFault, match=message):
        population(events, [START], f"SELECT {columns} FROM events, as_ofs")


def test_features_without_their_spine_are_refused(events: DataFrame, spine: DataFrame) -> None:
    with pytest.raises(FrameFault, match=r"features\.sql gives no as_of, but key, x"):
        features(events, spine, {}, "SELECT key, 1 AS x FROM spine")


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("1 AS hit", r"labels\.sql gives no label, but key, as_of, hit"),
        ("1 = 1 AS label", r"labels\.sql: label is boolean; write CAST"),
        ("0.5 AS label", r"labels\.sql: label is decimal\(1,1\); write CAST"),
    ],
)
def test_labels_of_another_shape_are_refused(events: DataFrame, spine: DataFrame, column: str, message: str) -> None:
    with pytest.raises(FrameFault, match=message):
        labels(events, spine, f"SELECT key, as_of, {column} FROM spine", 60)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deliveries=DELIVERIES, chance=st.randoms(use_true_random=False))
def test_at_any_instant_the_newest_snapshot_is_valid_and_it_alone(
    spark: SparkSession, deliveries: dict[tuple[str, int], tuple[str | None, int, int]], chance: object
) -> None:
    rows = [
        (START + number * DAY, key, model, size, (START + number * DAY).date(), f"file-{copy}")
        for (key, number), (model, size, copies) in deliveries.items()
        for copy in range(copies)
    ]
    chance.shuffle(rows)  # type: ignore[attr-defined]  # reason: a random.Random, which Hypothesis records
    found = with_validity(spark.createDataFrame(rows, SNAPSHOTS), "station").toArrow().to_pylist()
    for key in "ABC":
        known = {number: said[:2] for (name, number), said in sorted(deliveries.items()) if name == key}
        mine = sorted((row for row in found if row["station"] == key), key=lambda row: row["valid_from"])
        assert all(one["valid_to"] == other["valid_from"] for one, other in pairwise(mine)), "no gap and no overlap"
        for number in range(-1, 9):
            as_of = START + number * DAY
            valid = [(row["model"], row["size"]) for row in mine if row["valid_from"] <= as_of < row["valid_to"]]
            assert valid == [known[day] for day in known if day <= number][-1:]
        changes = [
            day for day, said in known.items() if known.get(max((d for d in known if d < day), default=-1)) != said
        ]
        assert [row["valid_from"] for row in mine] == [START + day * DAY for day in changes]


def test_which_of_equal_rows_stays_does_not_depend_on_their_order(spark: SparkSession) -> None:
    rows = [(START, "A", "x", 1, START.date(), f"file-{copy}") for copy in (2, 0, 1)]
    for shuffled in (rows, rows[::-1], sorted(rows, key=str)):
        assert [
            row.source_file for row in with_validity(spark.createDataFrame(shuffled, SNAPSHOTS), "station").collect()
        ] == ["file-0"]
