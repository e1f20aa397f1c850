"""The suites of purchase_propensity hold for what is right, also when it is nothing, and not for what is wrong."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from expectations.errors import ExpectationsFailed
from expectations.gate import Gate
from expectations.rows import RowRules
from expectations.suites import load_suite

ROOT = Path(__file__).parents[2]
SUITES = ROOT / "expectations" / "suites" / "purchase_propensity"
DAY = datetime(1998, 6, 1, tzinfo=UTC)
AS_OF = DAY + timedelta(days=1)
STAGED = (
    "customer_id string, purchase_date date, cds int, amount decimal(10,2), event_id string, event_time timestamp, "
    "arrived_at timestamp, parse_fault string"
)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(SUITES, tmp_path)


def staged(spark: SparkSession, rows: int = 44) -> DataFrame:
    """A day's purchases: as many as on the quietest day of June 1998."""
    return spark.range(rows).select(
        F.format_string("%05d", "id").alias("customer_id"),
        F.lit(DAY.date()).alias("purchase_date"),
        F.lit(1).alias("cds"),
        F.col("id").cast("decimal(10,2)").alias("amount"),
        F.col("id").cast("string").alias("event_id"),
        F.lit(DAY).alias("event_time"),
        F.lit(AS_OF).alias("arrived_at"),
        F.lit(None).cast("string").alias("parse_fault"),
    )


def spoiled(frame: DataFrame, column: str, value: object, rows: range) -> DataFrame:
    """The frame with `value` in a column of some rows."""
    kind = frame.schema[column].dataType
    among = F.col("event_id").cast("int").between(rows.start, rows.stop - 1)
    return frame.withColumn(column, F.when(among, F.lit(value).cast(kind)).otherwise(F.col(column)))


def test_a_quiet_day_without_any_purchase_passes(spark: SparkSession, gate: Gate) -> None:
    measured = gate.check(spark.createDataFrame([], STAGED), "transactions", {"day": "1998-06-01"})
    assert all(one.success for one in measured)
    assert len(measured) == len(load_suite(SUITES / "transactions.yaml").checks)


# Each fault breaks another expectation, so one look at rows that have one each names them all.
BAD: dict[str, list[tuple[str, object, str]]] = {
    "absent, or too low": [
        ("customer_id", None, "not_be_null"),
        ("customer_id", "1", "match_regex"),
        ("cds", None, "not_be_null"),
        ("cds", 0, "be_between"),
        ("amount", None, "not_be_null"),
        ("amount", "-0.01", "be_between"),
        ("event_time", None, "not_be_null"),
        ("parse_fault", "line 3: amount 'abc' is no decimal(10,2)", "be_null"),
    ],
    "too high": [("cds", 100_000, "be_between"), ("amount", "99999.99", "be_between")],
}


@pytest.mark.parametrize("kind", BAD)
def test_three_bad_rows_stop_even_the_quietest_day(spark: SparkSession, gate: Gate, kind: str) -> None:
    day = staged(spark)
    for number, (column, value, _) in enumerate(BAD[kind]):
        day = spoiled(day, column, value, range(3 * number, 3 * number + 3))
    with pytest.raises(ExpectationsFailed, match=f": {len(BAD[kind])} of 11 expectations failed") as caught:
        gate.check(day, "transactions", {"day": "1998-06-01"})
    for column, _, expectation in BAD[kind]:
        told = rf"expect_column_values_to_{expectation}\([^;]*\) on {column}: 3 of 44 rows"
        assert re.search(told, str(caught.value)), told


def test_two_bad_rows_go_to_quarantine_with_their_reasons(spark: SparkSession, gate: Gate) -> None:
    day = spoiled(spoiled(staged(spark), "amount", "-0.01", range(2)), "cds", 0, range(1))
    assert all(one.success for one in gate.check(day, "transactions", {"day": "1998-06-01"}))
    faulted = RowRules.of(day, gate.suite("transactions")).judged(day).filter(F.size("faults") > 0)
    too_low = "amount=-0.01 breaks expect_column_values_to_be_between(min_value=0, max_value=10000, mostly=0.95)"
    no_disc = "cds=0 breaks expect_column_values_to_be_between(min_value=1, max_value=1000, mostly=0.95)"
    assert {row.event_id: row.faults for row in faulted.collect()} == {"0": [no_disc, too_low], "1": [too_low]}


@pytest.mark.parametrize("column", ["event_id", "arrived_at"])
def test_what_ingest_itself_writes_must_be_there(spark: SparkSession, gate: Gate, column: str) -> None:
    with pytest.raises(ExpectationsFailed, match=f"on {column}: 1 of 44 rows"):
        gate.check(spoiled(staged(spark), column, None, range(1)), "transactions", {"day": "1998-06-01"})


def computed_features(spark: SparkSession) -> DataFrame:
    """The real features.sql over three customers: an old one, a new one, and one who never paid."""
    purchases = [
        ("1", 400, "9.99", 2),
        ("1", 30, "20.00", 1),
        ("1", 3, "5.00", 1),
        ("2", 1, "1.50", 1),
        ("3", 700, "0", 1),
    ]
    rows = [(f"e{i}", key, days, amount, cds) for i, (key, days, amount, cds) in enumerate(purchases)]
    events = spark.createDataFrame(
        rows, "event_id string, customer_id string, days int, amount string, cds int"
    ).select(
        "event_id",
        "customer_id",
        (F.lit(AS_OF) - F.make_dt_interval("days")).alias("event_time"),
        F.lit(AS_OF).alias("arrived_at"),
        "cds",
        F.col("amount").cast("decimal(10,2)").alias("amount"),
    )
    spine = events.select(F.col("customer_id").alias("key"), F.lit(AS_OF).alias("as_of")).distinct()
    events.createOrReplaceTempView("events")
    spine.createOrReplaceTempView("spine")
    try:
        return spark.sql((ROOT / "jobs" / "sql" / "purchase_propensity" / "features.sql").read_text())
    finally:
        for view in ("events", "spine"):
            spark.catalog.dropTempView(view)


def test_the_features_of_features_sql_pass_and_each_is_expected_something_of(spark: SparkSession, gate: Gate) -> None:
    features = computed_features(spark)
    measured = gate.check(features, "features", {"as_of": "1998-06-02"})
    assert all(one.success for one in measured)
    assert set(features.columns) == {name for one in measured if one.column for name in one.column.split(", ")}


def test_features_of_nobody_do_not_pass(spark: SparkSession, gate: Gate) -> None:
    with pytest.raises(ExpectationsFailed, match="observed 0"):
        gate.check(computed_features(spark).limit(0), "features", {"as_of": "1998-06-02"})


def test_a_customer_with_two_rows_of_features_does_not_pass(spark: SparkSession, gate: Gate) -> None:
    features = computed_features(spark)
    with pytest.raises(
        ExpectationsFailed, match=r"expect_compound_columns_to_be_unique\(\) on key, as_of: 6 of 6 rows"
    ):
        gate.check(features.union(features), "features", {"as_of": "1998-06-02"})


def scored(spark: SparkSession, *scores: float | None) -> DataFrame:
    rows = [(str(i), AS_OF, score) for i, score in enumerate(scores)]
    return spark.createDataFrame(rows, "key string, as_of timestamp, score float")


def test_probabilities_pass(spark: SparkSession, gate: Gate) -> None:
    measured = gate.check(scored(spark, 0.0, 0.1, 1.0), "scores", {"as_of": "1998-06-02"})
    assert all(one.success for one in measured)


@pytest.mark.parametrize(
    ("scores", "said"),
    [((0.001, 0.002), "on score: observed 0.0015"), ((1.0, 0.5), "on score: observed 0.75"), ((), "observed 0")],
)
def test_an_unlikely_mean_and_no_rows_do_not_pass(
    spark: SparkSession, gate: Gate, scores: tuple[float, ...], said: str
) -> None:
    with pytest.raises(ExpectationsFailed) as caught:
        gate.check(scored(spark, *scores), "scores", {"as_of": "1998-06-02"})
    assert said in str(caught.value)


def test_what_is_no_probability_and_a_second_score_do_not_pass(spark: SparkSession, gate: Gate) -> None:
    rows = scored(spark, 0.1, float("nan"), None, 1.1, -0.1).union(scored(spark, 0.2))
    with pytest.raises(ExpectationsFailed) as caught:
        gate.check(rows, "scores", {"as_of": "1998-06-02"})
    assert "expect_column_values_to_not_be_null() on score: 1 of 6 rows" in str(caught.value)
    assert re.search(r"max_value=1\) on score: 3 of 6 rows, such as nan, 1\.1\d*, -0\.1", str(caught.value))
    assert "expect_compound_columns_to_be_unique() on key, as_of: 2 of 6 rows" in str(caught.value)
