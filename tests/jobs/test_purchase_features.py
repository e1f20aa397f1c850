"""The SQL of purchase_propensity: what it says by a second, plain definition, and that it never looks ahead."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from math import nan, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession

from jobs.features import feature_names, features, labels, population
from jobs.sqlfile import read_sql
from tests.conftest import ROOT
from tests.registered import PURCHASE_FEATURES

SQL = {
    kind: read_sql(ROOT / "jobs" / "sql" / "purchase_propensity" / f"{kind}.sql").text
    for kind in ("population", "features", "labels")
}
SCHEMA = (
    "event_id string, customer_id string, event_time timestamp, arrived_at timestamp, cds int, amount decimal(10,2)"
)
DAY = timedelta(days=1)
NOW = datetime(1998, 6, 2, tzinfo=UTC)
AS_OFS = (NOW - 200 * DAY, NOW - 30 * DAY, NOW)


@dataclass(frozen=True)
class Purchase:
    event_id: str
    customer_id: str
    event_time: datetime
    arrived_at: datetime
    cds: int
    amount: Decimal


def purchases(seed: int, count: int = 150) -> list[Purchase]:
    """Purchases of up to 12 customers over 500 days: several a day, late ones, and equal ones."""
    chance = np.random.default_rng(seed)
    made = []
    for number in range(count):
        when = NOW - DAY * int(
            chance.choice([int(chance.integers(-40, 500)), int(chance.integers(-5, 40)), 30, 90, 365])
        )
        when += timedelta(hours=int(chance.choice([0, 0, 9, 23])))
        arrived = when.replace(hour=0) + DAY * int(chance.choice([1, 1, 1, 1, 4, 70]))
        price = Decimal(int(chance.integers(0, 9_000))) / 100
        customer, items = f"{chance.integers(12):05d}", int(chance.integers(1, 6))
        made.append(Purchase(f"e{number}", customer, when, arrived, items, price))
    return made


def frame(spark: SparkSession, rows: Iterable[Purchase]) -> DataFrame:
    return spark.createDataFrame([tuple(vars(row).values()) for row in rows], SCHEMA)


def computed(spark: SparkSession, rows: list[Purchase]) -> dict[tuple[str, datetime], dict[str, float | None]]:
    """Return the features of each customer known at each of AS_OFS, as Spark computes them."""
    events = frame(spark, rows)
    table = features(events, population(events, AS_OFS, SQL["population"]), {}, SQL["features"]).toArrow().to_pylist()
    return {(row.pop("key"), row.pop("as_of")): row for row in table}


def by_hand(seen: list[Purchase], as_of: datetime) -> dict[str, float | None]:
    """Return the same features in plain Python."""
    days = sorted({row.event_time.date() for row in seen})
    gaps = [(later - earlier).days for earlier, later in pairwise(days)]
    spent, count = sum(row.amount for row in seen), len(seen)
    within = {span: [row for row in seen if row.event_time >= as_of - span * DAY] for span in (30, 90, 180, 365)}
    mean = sum(gaps) / len(gaps) if gaps else None
    return {
        "recency_days": (as_of - max(row.event_time for row in seen)) / DAY,
        "tenure_days": (as_of - min(row.event_time for row in seen)) / DAY,
        "purchase_days": len(days),
        "spent_total": float(spent),
        "basket_value_mean": float(spent) / count,
        "basket_items_mean": sum(row.cds for row in seen) / count,
        "gap_mean_days": mean,
        "gap_last_days": gaps[-1] if gaps else None,
        "gap_std_days": sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) if mean and len(gaps) > 1 else None,
        **{f"purchases_{span}d": len(recent) for span, recent in within.items()},
        **{f"spent_{span}d": float(sum(row.amount for row in recent)) for span, recent in within.items()},
        "share_spent_90d": float(sum(row.amount for row in within[90])) / float(spent) if spent else None,
    }


def defined(values: dict[str, float | None]) -> dict[str, float]:
    """Return values with NaN for None, for only numbers compare nearly."""
    return {name: nan if value is None else value for name, value in values.items()}


def visible(rows: Iterable[Purchase], as_of: datetime) -> list[Purchase]:
    return [row for row in rows if row.event_time < as_of and row.arrived_at <= as_of]


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 10**6))
def test_features_are_what_a_plain_definition_says(spark: SparkSession, seed: int) -> None:
    rows = purchases(seed)
    found = computed(spark, rows)
    expected = {
        (key, as_of): by_hand(seen, as_of)
        for as_of in AS_OFS
        for key in {row.customer_id for row in rows}
        if (seen := [row for row in visible(rows, as_of) if row.customer_id == key])
    }
    assert set(found) == set(expected)
    for place, values in expected.items():
        assert defined(found[place]) == pytest.approx(defined(values), rel=1e-9, nan_ok=True), place


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 10**6))
def test_what_is_not_visible_changes_no_bit_of_any_feature(spark: SparkSession, seed: int) -> None:
    """Neither what happens after as_of, nor what arrives after it, nor the order and the split of the rows."""
    rows = purchases(seed)
    known = visible(rows, NOW)
    happened = [row for row in rows if row.event_time >= NOW]
    arrived = [row for row in rows if row.event_time < NOW < row.arrived_at]
    assert happened
    assert arrived
    mixed = [rows[place] for place in np.random.default_rng(seed).permutation(len(rows))]
    assert computed(spark, known) == computed(spark, mixed)
    events = frame(spark, mixed).repartition(3)
    spine = population(events, AS_OFS, SQL["population"]).repartition(2)
    split = features(events, spine, {}, SQL["features"]).toArrow().to_pylist()
    assert {(row.pop("key"), row.pop("as_of")): row for row in split} == computed(spark, known)


def test_each_row_of_the_spine_has_one_row_even_without_a_purchase(spark: SparkSession) -> None:
    spine = spark.createDataFrame([("nobody", NOW)], "key string, as_of timestamp")
    found = features(frame(spark, purchases(1)), spine, {}, SQL["features"])
    assert feature_names(found) == PURCHASE_FEATURES
    assert {field.dataType.simpleString() for field in found.schema.fields[2:]} == {"double"}
    row = found.toArrow().to_pylist()[0]
    assert row["purchase_days"] == row["spent_total"] == row["purchases_365d"] == row["spent_30d"] == 0
    assert row["recency_days"] is row["gap_mean_days"] is row["share_spent_90d"] is None


def test_customers_come_with_a_visible_purchase_and_leave_after_two_years(spark: SparkSession) -> None:
    def bought(key: str, days_before: int, delivered: int = 1) -> Purchase:
        when = NOW - days_before * DAY
        return Purchase(key, key, when, when + delivered * DAY, 1, Decimal("9.99"))

    rows = [bought("known", 1), bought("late", 5, delivered=9), bought("ahead", 0), bought("lost", 740)]
    again = bought("loyal", 740), bought("loyal", 700)
    found = population(frame(spark, [*rows, *again]), [NOW], SQL["population"]).toArrow().to_pylist()
    assert sorted(row["key"] for row in found) == ["known", "loyal"]


@pytest.mark.parametrize(("days_after", "label"), [(-1, 0), (0, 1), (59, 1), (60, 0)])
def test_the_label_looks_at_the_horizon_and_no_further(spark: SparkSession, days_after: int, label: int) -> None:
    when = NOW + days_after * DAY
    events = frame(spark, [Purchase("e", "a", when, when + DAY, 1, Decimal(1))])
    spine = spark.createDataFrame([("a", NOW), ("b", NOW)], "key string, as_of timestamp")
    found = {row["key"]: row["label"] for row in labels(events, spine, SQL["labels"], 60).collect()}
    assert found == {"a": label, "b": 0}
