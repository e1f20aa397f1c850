"""The micro-batch path over real events, models and Redis: fresher, and never another score than the batch's."""

import json
from collections.abc import Iterator
from datetime import UTC, date, timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.features import features
from jobs.ingest import ingest
from jobs.publication.publish import Warrant, publish
from jobs.score import score
from jobs.staging import DELIVERY
from jobs.stream import batch as batch_module
from jobs.stream import scored as scored_module
from jobs.stream import scorer as scorer_module
from jobs.stream.batch import Batches
from jobs.stream.touched import histories
from serving.clock import microseconds
from serving.overlay import OverlayStore
from serving.store import Store
from tests.jobs.conftest import DAY, FIRST
from tests.jobs.populations import at
from tests.jobs.shop import EVENTS, NAME, NOW, SECOND, Shop, by_batch, opened, rows, score_bits, seen
from tests.jobs.streamer import await_true
from tests.project import Project, purchases, scored
from tests.registered import register_small

POINTS = """sources:
  points:
    kind: dimension
    landing: points/date={day}/*.csv
    first_day: 1998-05-28
    columns: {customer_id: string, points: double}
    suite: points
"""
JOINED = """FROM history
LEFT JOIN points AS p ON p.customer_id = history.key AND p.valid_from <= history.as_of AND history.as_of < p.valid_to
"""


@pytest.fixture
def shop(project: Project, store: Store, jobs_redis_url: str, tmp_path: Path) -> Iterator[Shop]:
    with opened(project, store, jobs_redis_url, tmp_path) as shop:
        yield shop


def test_what_happens_shows_at_once_with_the_bits_of_the_batch(shop: Shop) -> None:
    """Purchases in several commits; one customer is new, one buys twice, and nobody else is touched."""
    assert shop.fresh() == {}
    shop.happens(rows(("00001", "20.00"), ("newcomer", "7.50")), NOW)
    last = shop.happens(rows(("00001", "5.00"), ("00002", "30.00")), NOW + SECOND)
    fresh = shop.fresh()
    assert {key: (entry.as_of, entry.version) for key, entry in fresh.items()} == {
        "00001": (microseconds(NOW + SECOND), last),
        "newcomer": (microseconds(NOW), last - 1),
        "00002": (microseconds(NOW + SECOND), last),
    }
    assert score_bits(fresh) == by_batch(shop, fresh)
    assert shop.kept() == fresh


def test_an_event_counts_once_and_one_of_the_future_holds_up_nothing(shop: Shop) -> None:
    """A purchase that is sent again, and seen again in the day's file, changes neither as_of nor score."""
    first = rows(("00001", "20.00"), ids=("order-1",))
    shop.happens(first, NOW)
    before = seen(shop.fresh())
    shop.happens(first, NOW + SECOND)
    assert seen(shop.fresh()) == before
    shop.happens(rows(("00001", "99.00"), ("00002", "99.00")), NOW + timedelta(hours=1))
    assert seen(shop.fresh()) == before
    shop.happens(rows(("00002", "10.00")), NOW + 2 * SECOND)
    fresh = shop.fresh()
    assert fresh["00002"].as_of == microseconds(NOW + 2 * SECOND)
    assert score_bits(fresh) == by_batch(shop, fresh)


def test_an_event_of_the_future_shows_once_it_has_come_of_age(shop: Shop) -> None:
    """By itself: nothing else happens to its key."""
    arrives = shop.site.clock.now() + 3 * SECOND
    shop.happens(rows(("00001", "99.00")), arrives)
    assert shop.fresh() == {}
    shop.batches.rested = 0.0
    await_true(lambda: shop.site.clock.now() > arrives)
    shop.batches.idle()
    fresh = shop.fresh()
    assert fresh["00001"].as_of == microseconds(arrives)
    assert score_bits(fresh) == by_batch(shop, fresh)
    assert shop.kept() == fresh


def test_a_micro_batch_of_which_nothing_has_arrived_yet_waits(shop: Shop) -> None:
    """Of somebody who has no other event, too."""
    shop.happens(rows(("00001", "1.00")), NOW)
    before, arrives = seen(shop.fresh()), NOW + timedelta(days=1)
    version = shop.happens(rows(("nobody", "1.00")), arrives)
    assert seen(shop.fresh()) == before
    assert (shop.batches.due, shop.batches.version) == (microseconds(arrives), version)


def test_an_event_without_an_arrival_never_arrives(shop: Shop) -> None:
    """Nor does it stand for the same event that has arrived."""
    bought = rows(("00001", "1.00"), ids=("twice",))
    never = pa.nulls(1, pa.timestamp("us", "UTC"))
    shop.happens(bought.append_column("arrived_at", never), NOW)
    assert shop.fresh() == {}
    shop.happens(bought, NOW)
    fresh = shop.fresh()
    assert fresh["00001"].as_of == microseconds(NOW)
    assert score_bits(fresh) == by_batch(shop, fresh)


def test_an_event_by_a_clock_that_is_behind_shows_too(shop: Shop) -> None:
    """Its arrival is before what is known: the as_of stays, and the score is that of all that is known."""
    shop.happens(rows(("00001", "1.00")), NOW)
    before = shop.fresh()["00001"]
    version = shop.happens(rows(("00001", "900.00")), NOW - timedelta(hours=1))
    after = shop.fresh()["00001"]
    assert (after.as_of, after.version) == (before.as_of, version)
    assert after.values != before.values
    assert score_bits(shop.fresh()) == by_batch(shop, shop.fresh())


def test_rows_know_when_they_were_written(shop: Shop) -> None:
    before = shop.site.clock.now()
    shop.happens(rows(("00003", "20.00")), NOW)
    mine = shop.project.lake.read(f"scores_live/{NAME}").where("key = '00003'")
    (row,) = mine.selectExpr("unix_micros(scored_at)").collect()
    assert microseconds(before) <= row[0] <= microseconds(shop.site.clock.now())


def test_a_micro_batch_compiles_nothing_that_the_one_before_has(shop: Shop) -> None:
    """Its rows and instants are others, and its plans the same: so that Java comes to know them, and they get fast."""
    java: Any = shop.project.spark.sparkContext._jvm
    compiled = java.org.apache.spark.metrics.source.CodegenMetrics.METRIC_COMPILATION_TIME()
    for seconds in range(3):
        shop.happens(rows(("00001", "20.00")), NOW + seconds * SECOND)
    before = compiled.getCount()
    shop.happens(rows(("00002", "5.00"), ("newcomer", "7.50")), NOW + 9 * SECOND)
    assert shop.fresh()["newcomer"].as_of == microseconds(NOW + 9 * SECOND)
    assert compiled.getCount() == before
    assert shop.project.spark.conf.get("spark.sql.autoBroadcastJoinThreshold") != "-1", "it is the stream's own"


def test_what_is_too_much_to_be_held_here_is_scored_from_the_table(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the query's state has all of it: the next micro-batch is again a small one, over the same histories."""
    limits = [(batch_module, "MOST_EVENTS"), (batch_module, "MOST_BYTES"), (scorer_module, "AT_ONCE")]
    for number, (module, limit) in enumerate(limits):
        with monkeypatch.context() as patched:
            patched.setattr(module, limit, 1)
            shop.happens(rows(("00001", "20.00"), ("00002", "5.00"), ("newcomer", "7.50")), NOW + number * SECOND)
            assert {entry.as_of for entry in shop.fresh().values()} == {microseconds(NOW + number * SECOND)}
    last = NOW + len(limits) * SECOND
    shop.happens(rows(("00001", "1.00"), ("newcomer", "2.00")), last)
    fresh = shop.fresh()
    assert {key for key, entry in fresh.items() if entry.as_of == microseconds(last)} == {"00001", "newcomer"}
    assert score_bits(fresh) == by_batch(shop, fresh)
    assert shop.kept() == fresh


def test_a_batch_that_comes_again_changes_nothing(shop: Shop) -> None:
    """As after a kill: Spark gives the last batch again, and the process has forgotten what it had done."""
    shop.happens(rows(("00001", "20.00"), ("00002", "5.00")), NOW)
    before, kept = shop.fresh(), shop.kept()
    lines = shop.project.lake.read(f"scores_live/{NAME}").count()
    key = shop.site.pipeline.entity_key
    events = shop.site.lake.read(EVENTS).where("customer_id IN ('00001', '00002')")
    again = histories(events.drop(*DELIVERY), key)
    shop.batches.process(again, shop.batches.number)
    assert (shop.fresh(), shop.kept()) == (before, kept)
    assert shop.project.lake.read(f"scores_live/{NAME}").count() == lines
    Batches(shop.site, Event()).process(again, shop.batches.number)
    assert (shop.fresh(), shop.kept()) == (before, kept)
    assert shop.project.lake.read(f"scores_live/{NAME}").count() == lines


def test_another_model_goes_live_with_all_that_has_happened_since(
    shop: Shop, tmp_path: Path, jobs_redis_url: str
) -> None:
    """Its generation is of another epoch, in which the overlay begins empty: the stream fills it at its next batch."""
    shop.happens(rows(("00001", "20.00"), ("00002", "5.00")), NOW)
    other = register_small(shop.site.settings.mlflow_uri, tmp_path / "other", seed=2)
    assert publish(scored(shop.project, other, DAY), jobs_redis_url) == "live"
    assert shop.fresh() == {}
    shop.happens(rows(("00003", "5.00")), NOW + SECOND)
    fresh = shop.fresh()
    assert fresh.keys() == {"00001", "00002", "00003"}
    assert score_bits(fresh) == by_batch(shop, fresh)
    assert shop.kept() == fresh


def test_scores_of_an_epoch_that_ends_meanwhile_are_not_left_behind(
    shop: Shop, tmp_path: Path, jobs_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another model goes live while a micro-batch is scored: nobody would remove what it wrote after that."""
    before = shop.head
    other = register_small(shop.site.settings.mlflow_uri, tmp_path / "other", seed=2)
    run = scored(shop.project, other, DAY)
    swaps = iter([lambda: publish(run, jobs_redis_url)])

    def meanwhile(*given: Any) -> DataFrame:
        next(swaps, lambda: "")()
        return features(*given)

    monkeypatch.setattr(scored_module, "features", meanwhile)
    shop.happens(rows(("00001", "20.00")), NOW)
    assert shop.head.epoch > before.epoch
    assert list(OverlayStore(shop.site.store).entries(before)) == []
    assert shop.fresh().keys() == {"00001"}
    assert score_bits(shop.fresh()) == by_batch(shop, shop.fresh())


def test_a_redis_that_came_back_without_the_overlay_gets_it_again(shop: Shop, jobs_redis_url: str) -> None:
    shop.happens(rows(("00001", "20.00"), ("00002", "5.00")), NOW)
    before = shop.fresh()
    lost = shop.head
    shop.site.store.ask("FLUSHDB")
    run = shop.project.run(DAY)
    assert publish(run, jobs_redis_url, Warrant("republished", lost=lost)) == "live"
    assert shop.fresh() == {}
    shop.batches.idle()
    after = shop.fresh()
    assert seen(after) == seen(before)
    assert score_bits(after) == by_batch(shop, after)


def test_publication_and_stream_never_undo_each_other(shop: Shop, jobs_redis_url: str) -> None:
    """An older as_of is history, one of this morning again hides nothing, and a newer one overtakes what is older."""
    shop.happens(rows(("00001", "20.00")), NOW)
    before = shop.fresh()
    model = shop.head.model
    for day in (FIRST, DAY):
        run = at(shop.project.run(day))
        score(run, model.version, model.digest)
        publish(run, jobs_redis_url)
        assert shop.fresh() == before
    following = DAY + timedelta(days=1)
    shop.project.deliver(following, purchases(following, 30))
    ingest(shop.project.run(following), [following])
    newer = at(shop.project.run(following), minutes=1)
    score(newer, model.version, model.digest)
    assert publish(newer, jobs_redis_url) == "live"
    assert shop.head.overtakes(before["00001"].as_of)
    shop.settle()
    assert publish(at(newer, minutes=2), jobs_redis_url) == "live"
    assert publish(at(newer, minutes=3), jobs_redis_url) == "live"
    assert shop.fresh() == {}


def test_features_that_break_a_rule_are_quarantined_and_counted(shop: Shop) -> None:
    """The score of before stays: no customer ever spent a million at once."""
    shop.happens(rows(("00001", "20.00")), NOW)
    before = shop.fresh()
    shop.happens(rows(("00001", "9999999.00"), ("00002", "5.00")), NOW + SECOND)
    fresh = shop.fresh()
    assert fresh.keys() == {"00001", "00002"}
    assert fresh["00001"] == before["00001"]
    (row,) = shop.project.lake.read(f"quarantine_live/{NAME}").collect()
    assert (row.key, row.as_of.replace(tzinfo=UTC)) == ("00001", NOW + SECOND)
    assert any(reason.startswith("spent_total=") for reason in row.reasons)
    assert json.loads(row.features)["spent_total"] > 9_999_999
    assert shop.batches.scorer.sink.quarantined == 1


def test_only_the_segment_is_kept_fresh(project: Project, store: Store, jobs_redis_url: str, tmp_path: Path) -> None:
    with opened(project, store, jobs_redis_url, tmp_path, "stream: {segment: spent_total > 500}") as shop:
        shop.happens(rows(("00001", "20.00"), ("00002", "600.00")), NOW)
        assert shop.fresh().keys() == {"00002"}


def test_a_history_that_is_too_long_waits_for_the_next_run(
    project: Project, store: Store, jobs_redis_url: str, tmp_path: Path
) -> None:
    with opened(project, store, jobs_redis_url, tmp_path, "stream: {longest_history: 3}") as shop:
        shop.happens(rows(("00001", "20.00")), NOW)
        shop.happens(rows(("00001", "20.00"), ("00002", "6.00")), NOW + SECOND)
        fresh = shop.fresh()
        assert {key: entry.as_of for key, entry in fresh.items()} == {
            "00001": microseconds(NOW),
            "00002": microseconds(NOW + SECOND),
        }
        Batches(shop.site, Event()).idle()  # as after a restart
        assert shop.fresh() == fresh


def test_another_definition_of_a_feature_is_noticed(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """What compares the stream with the batch fails where the stream computes one feature in another way."""

    def otherwise(*given: Any) -> DataFrame:
        return features(*given).withColumn("spent_total", F.expr("0 * spent_total"))

    monkeypatch.setattr(scored_module, "features", otherwise)
    shop.happens(rows(("00001", "20.00")), NOW)
    assert score_bits(shop.fresh()) != by_batch(shop, shop.fresh())


def test_a_dimension_counts_as_in_the_batch_and_is_read_again_when_it_changes(
    project: Project, store: Store, jobs_redis_url: str, tmp_path: Path
) -> None:
    other = project.copied(tmp_path)
    with_points(other)
    points(other, FIRST, "00006,5\n00002,100\n")
    points(other, DAY, "00002,100\n")
    with opened(other, store, jobs_redis_url, tmp_path) as shop:
        shop.happens(rows(("00006", "5.00")), NOW)
        first = shop.fresh()
        assert score_bits(first) == by_batch(shop, first)
        between = DAY - timedelta(days=1)
        points(shop.project, between, "00006,100\n")
        shop.project.deliver(between, purchases(between, 5, first=500))
        ingest(shop.project.run(between), [between])
        shop.happens(rows(("00006", "1.00")), NOW + SECOND)
        second = shop.fresh()
        assert second["00006"].values > first["00006"].values  # the model minds whether it is more than 20
        assert score_bits(second) == by_batch(shop, second)
        live = shop.project.lake.read(f"scores_live/{NAME}").selectExpr("dimension_versions['points'] AS points")
        assert {row.points for row in live.collect()} == {0, 1}


def with_points(project: Project) -> None:
    """Declare a dimension of points a customer, and let them be the feature that the model minds most."""
    yaml = project.settings.pipelines / f"{NAME}.yaml"
    yaml.write_text(yaml.read_text().replace("sources:\n", POINTS))
    suite = project.settings.suites / NAME / "points.yaml"
    suite.write_text("- type: expect_column_values_to_not_be_null\n  kwargs: {column: points}\n")
    sql = project.settings.sql(NAME, "features")
    joined = sql.read_text().replace("CAST(spent AS DOUBLE) AS spent_total", "COALESCE(points, 0) AS spent_total")
    sql.write_text(joined.rstrip().removesuffix("FROM history") + JOINED)


def points(project: Project, day: date, lines: str) -> None:
    path = Path(project.settings.landing) / f"points/date={day}/points.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"customer_id,points\n{lines}")
