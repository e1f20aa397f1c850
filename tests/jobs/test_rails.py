"""The rails: what is too far from the live generation does not go live, with the numbers, unless it is forced."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from deltalake import DeltaTable
from pyspark.sql import DataFrame, Row, SparkSession

from jobs.errors import NothingToPublish, Overtaken, RailsBreached
from jobs.publication import generation, rails
from jobs.publication.partition import Partition
from jobs.publication.publish import Warrant, publish, warrant
from jobs.publication.rails import Finding, findings
from jobs.spec import Rails
from serving.blocks import Tally
from serving.clock import microseconds
from serving.head import Head
from serving.keys import PIPELINES
from serving.layout import Layout
from serving.refusals import RefusalStore
from serving.store import Store
from tests.jobs.populations import DAY, NAME, at, numbered, put, supersede
from tests.project import Project
from tests.serving.publishing import head_for

NEXT = DAY + timedelta(days=1)
FORCED = Warrant("forced", "the population was halved on purpose")


def nulls(project: Project, rows: int, without: int) -> DataFrame:
    return numbered(project, rows, f"IF(id < {without}, IF(id % 2 = 0, NULL, double('NaN')), id / 100000)")


def broken(project: Project, partition: Partition, before: Head | None, **said: float) -> list[str]:
    found = findings(Rails.model_validate(said), partition, before, project.lake)
    return [str(one) for one in found if not one.held]


@pytest.mark.parametrize(
    ("rows", "without", "rails", "words"),
    [
        (800, 0, {}, None),
        (799, 0, {}, "799 scores, where generation 7 has 1000 (fall: 0.2 is the most)"),
        (2000, 0, {}, None),
        (2001, 0, {}, "2001 scores, where generation 7 has 1000 (rise: 1 is the most)"),
        (990, 10, {}, None),
        (989, 11, {}, "11 of 1000 rows without a score (nulls: 0.01 is the most)"),
        (700, 0, {"fall": 0.3}, None),
        (699, 0, {"fall": 0.3}, "699 scores, where generation 7 has 1000 (fall: 0.3 is the most)"),
        (1100, 0, {"rise": 0.1}, None),
        (1101, 0, {"rise": 0.1}, "1101 scores, where generation 7 has 1000 (rise: 0.1 is the most)"),
        (1, 0, {"fall": 1}, None),
        (1, 999, {"fall": 1, "nulls": 1}, None),
        (999, 1, {"nulls": 0}, "1 of 1000 rows without a score (nulls: 0 is the most)"),
    ],
)
def test_rows_are_counted(
    spark: SparkSession, project: Project, rows: int, without: int, rails: Any, words: str | None
) -> None:
    before = replace(head_for(NAME, 7, {"k": 0.5}), rows=1000)
    partition = Partition(spark.range(0), Row(), Tally(rows), without)
    assert broken(project, partition, before, **rails) == ([words] if words else [])


def test_of_a_first_generation_only_its_own_rows_are_judged(spark: SparkSession, project: Project) -> None:
    partition = Partition(spark.range(0), Row(), Tally(1), 1)
    found = findings(Rails.model_validate({"changed": 0}), partition, None, project.lake)
    assert found == [Finding("nulls", 0.5, 0.01, "1 of 2 rows without a score")]
    nobody = replace(head_for(NAME, 7, {"k": 0.5}), rows=0)
    assert [one.rail for one in findings(Rails.model_validate({}), partition, nobody, project.lake)] == ["nulls"]


def test_changed_scores_are_those_beyond_the_tolerance_among_the_keys_of_both(project: Project) -> None:
    layout = Layout.fitting(1000, 64, salt=3)
    old = put(project, DAY, numbered(project, 1000)).lake.read(f"scores/{NAME}").select("key", "score")
    tally = generation.expected(old, layout)
    before = replace(head_for(NAME, 7, {}), layout=layout, rows=tally.rows, checksum=tally.checksum)

    def of(scores: DataFrame) -> Partition:
        return Partition(scores, Row(), Tally(1000), 0)

    moved = numbered(project, 1100, "id / 100000 + IF(id % 10 = 0, 0.1, 0.00001)").where("key NOT IN ('k1', 'k10')")
    said = "{} of the 998 scores differ from those of generation 7 (changed: {} is the most)"
    assert broken(project, of(moved), before) == []
    assert broken(project, of(moved), before, changed=0.1, tolerance=0.05) == []
    assert broken(project, of(moved), before, changed=0.09, tolerance=0.05) == [said.format(99, 0.09)]
    assert broken(project, of(moved), before, changed=0.9) == [said.format(998, 0.9)]

    others = numbered(project, 1000).selectExpr("concat('0', key) AS key", "score")
    assert "0 of the 0 scores differ" in broken(project, of(others), before, changed=0.9)[0]

    supersede(project, DAY)
    restated = put(project, DAY, numbered(project, 1000, "0.5")).lake.read(f"scores/{NAME}").select("key", "score")
    assert broken(project, of(restated), before, changed=0.9) == [
        "1000 of the 1000 scores differ from those of generation 7 (changed: 0.9 is the most)"
    ]
    forgotten = replace(before, checksum=1)
    assert broken(project, of(restated), forgotten, changed=0.9) == [
        "the lake has no more what generation 7 was made of (changed: 0.9 is the most)"
    ]


def test_a_breach_stays_on_record_and_what_was_live_stays_live_until_it_is_forced(
    project: Project, store: Store, jobs_redis_url: str
) -> None:
    first = at(put(project, DAY, nulls(project, 1000, 10)))
    assert publish(first, jobs_redis_url) == "live"
    live, refusals = store.head(NAME), RefusalStore(store, NAME)
    assert live is not None
    assert live.rows == 990
    run = at(put(project, NEXT, numbered(project, 500)), 1)
    with pytest.raises(RailsBreached, match=r"--day 1998-06-02 --publish force --reason WHY") as breach:
        publish(run, jobs_redis_url)
    assert breach.value.exit_code == 3
    assert store.head(NAME) == live
    refusal = refusals.read()[run.as_of.date()]
    words = "500 scores, where generation 1 has 990 (fall: 0.2 is the most)"
    assert (refusal.verdict, refusal.reason) == ("rail breach", words)
    assert notes(project, "rail breach") == [words]
    quality = DeltaTable(project.settings.table(f"quality/{NAME}")).to_pyarrow_table().to_pylist()
    judged = {row["metric"]: row["success"] for row in quality if row["suite"] == "rails" and row["as_of"] == run.as_of}
    assert judged == {"nulls": True, "fall": False, "rise": True}

    store.ask("FLUSHDB")
    with pytest.raises(RailsBreached, match="500 scores, where generation 1 has 990"):
        publish(run, jobs_redis_url)
    assert publish(run, jobs_redis_url, FORCED) == "live"
    assert refusals.read() == {}
    assert notes(project, "live")[-1] == "forced: the population was halved on purpose"


def test_why_nothing_is_live_yet_is_there_for_who_asks(project: Project, store: Store, jobs_redis_url: str) -> None:
    """A first publication that breaks a rail leaves no head, by which a pipeline would be known."""
    with pytest.raises(RailsBreached):
        publish(at(put(project, DAY, nulls(project, 1000, 20))), jobs_redis_url)
    assert store.ask("SMEMBERS", PIPELINES) == [NAME.encode()]
    assert RefusalStore(store, NAME).read()[DAY + timedelta(days=1)].verdict == "rail breach"


def test_force_lets_an_older_date_go_live_in_an_epoch_of_its_own(
    project: Project, store: Store, jobs_redis_url: str
) -> None:
    newer, older = at(put(project, NEXT, numbered(project, 1000))), at(put(project, DAY, numbered(project, 10)), 1)
    assert publish(newer, jobs_redis_url) == "live"
    assert publish(older, jobs_redis_url) == "history only"
    assert RefusalStore(store, NAME).read().keys() == {older.as_of.date()}
    assert publish(older, jobs_redis_url, FORCED) == "live"
    head = store.head(NAME)
    assert head is not None
    assert (head.epoch, head.rows, head.as_of) == (2, 10, microseconds(older.as_of))
    taken_back = RefusalStore(store, NAME).read()
    assert taken_back.keys() == {newer.as_of.date()}
    assert taken_back[newer.as_of.date()].verdict == "rolled back"
    assert taken_back[newer.as_of.date()].reason == f"forced: {FORCED.reason}"
    assert publish(older, jobs_redis_url, FORCED) == "live"
    assert [head.epoch for head in [store.head(NAME)] if head] == [3]


def test_what_is_withheld_fills_history_whatever_is_live(project: Project, store: Store, jobs_redis_url: str) -> None:
    first, newer = at(put(project, DAY, numbered(project, 10))), at(put(project, NEXT, numbered(project, 10)), 1)
    assert publish(first, jobs_redis_url) == "live"
    live = store.head(NAME)
    assert publish(newer, jobs_redis_url, warrant("no", "")) == "history only"
    assert publish(newer, jobs_redis_url, warrant("no", "the prices were wrong")) == "history only"
    assert store.head(NAME) == live
    assert RefusalStore(store, NAME).read()[newer.as_of.date()].reason == "withheld: the prices were wrong"
    assert notes(project, "history only") == ["withheld: its run was told so", "withheld: the prices were wrong"]
    assert publish(newer, jobs_redis_url, warrant("newest", "")) == "live"
    assert publish(first, jobs_redis_url, warrant("force", "as it was")) == "live"


def test_nothing_but_rows_without_a_score_is_nothing_to_publish(project: Project, jobs_redis_url: str) -> None:
    with pytest.raises(NothingToPublish, match=r"no scores as of 1998-06-02 \(3 rows without\)"):
        publish(put(project, DAY, nulls(project, 3, 3)), jobs_redis_url, FORCED)


def test_who_was_overtaken_meanwhile_says_nothing_of_the_date(
    project: Project, store: Store, jobs_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even that the rails were broken: what went live since then are other scores of the same date."""
    assert publish(at(put(project, DAY, numbered(project, 1000))), jobs_redis_url) == "live"
    run, real = at(put(project, NEXT, numbered(project, 500)), 1), rails.findings

    def overtaken(*given: Any) -> list[Finding]:
        monkeypatch.setattr("jobs.publication.publish.findings", real)
        assert publish(at(put(project, NEXT, numbered(project, 1000)), 2), jobs_redis_url) == "live"
        return real(*given)

    monkeypatch.setattr("jobs.publication.publish.findings", overtaken)
    with pytest.raises(Overtaken, match="generation 2 was given up: another publication began meanwhile"):
        publish(run, jobs_redis_url)
    assert RefusalStore(store, NAME).read() == {}
    assert notes(project, "rail breach") == []


def notes(project: Project, event: str) -> list[str]:
    rows = DeltaTable(project.settings.table(f"publications/{NAME}")).to_pyarrow_table().to_pylist()
    return [row["note"] for row in sorted(rows, key=lambda row: row["at"]) if row["event"] == event]
