"""The ways in: no pipeline brings an erased key, under whatever key it runs, and none that read it before."""

import gzip
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.erasure.erase import Erasure, Place
from jobs.erasure.scope import scope_of, scope_of_all
from jobs.erasure.streams import Streams
from jobs.erasure.tombstones import Tombstones
from jobs.erasure.undeclared import refuse_undeclared
from jobs.errors import Fenced, FileFault, UndeclaredData
from jobs.explain.recompute import _as_it_stood
from jobs.explain.recorded import ScoreRow
from jobs.fencing import Fence
from jobs.ingest import Target, _append_once, ingest
from jobs.spec import load_pipelines
from jobs.tables import events_table, quarantine_table
from serving.clock import Clock
from serving.errors import StoreUnavailable
from serving.head import Model
from serving.keys import stream_wish_key
from serving.store import Store
from tests.jobs.conftest import DAY
from tests.jobs.traces import traces
from tests.project import Project, purchases, scored
from tests.registered import register_small

KEY = "00042"
NAME, EVENTS, QUARANTINE = "purchase_propensity", "events/transactions", "quarantine/transactions"
SCORES = f"scores/{NAME}"


def erasure(project: Project, store: Store, key: str = KEY) -> Erasure:
    scope = scope_of(project.pipeline(), load_pipelines(project.settings.pipelines))
    return Erasure(Place(project.lake, project.settings, store, Clock()), scope, key)


def begin(project: Project, store: Store, key: str = KEY) -> None:
    """Put the tombstone of a customer, which is the first step of an erasure."""
    erasure(project, store, key)._begin()


def keys(project: Project, table: str, column: str) -> set[str]:
    return {row[0] for row in project.lake.read(table).select(column).collect()}


def test_a_customer_that_one_pipeline_erased_is_brought_by_none_of_another_key(project: Project, store: Store) -> None:
    begin(project, store)
    mine = [f"{KEY},{DAY},1,1.00", f"{KEY},{DAY},x,1.00", f"{KEY},{DAY},1"]
    shown = f"00007,{KEY},1,1.00"  # of somebody else, whom nobody erased
    project.deliver(DAY, [*purchases(DAY, 40, first=100), *mine, shown])
    run = project.run(DAY)
    ingest(replace(run, pipeline=run.pipeline.model_copy(update={"entity_key": "cds"})), [DAY])
    assert len(keys(project, EVENTS, "customer_id")) == 40
    assert KEY not in keys(project, EVENTS, "customer_id")
    assert ["00007" in raw for raw in keys(project, QUARANTINE, "raw")] == [True]


def test_an_erasure_of_all_takes_a_key_out_of_what_pipelines_of_other_keys_read(project: Project, store: Store) -> None:
    """Also where its column is a number there, and where it was declared since, so that the table has none yet."""
    key, one = "77770777", project.pipeline()
    columns = {"shop": "string", "purchase_date": "date", "customer_id": "int"}
    changes = {"landing": "visits/date={day}/*.csv", "columns": columns}
    visits = one.events[1].model_copy(update=changes)
    returns = visits.model_copy(update={"landing": "returns/date={day}/*.csv"})
    shops = one.model_copy(update={"name": "shops", "entity_key": "shop", "sources": {"visits": visits}})
    more = shops.model_copy(update={"name": "more", "sources": {"returns": returns}})
    project.lake.create(
        events_table("returns", returns.model_copy(update={"columns": {"shop": "string", "purchase_date": "date"}}))
    )
    for table, rows, names in (
        (events_table("visits", visits), [("s1", int(key)), ("s2", 7)], "shop STRING, customer_id INT"),
        (quarantine_table("visits"), [(f"{each},x", []) for each in (key, "7")], "raw STRING, reasons ARRAY<STRING>"),
    ):
        project.lake.create(table)
        project.lake.append(project.spark.createDataFrame(rows, names), table.name, project.lake.fence(table.name, "t"))
    file = Path(project.settings.landing, "visits", f"date={DAY}", "visits.csv")
    file.parent.mkdir(parents=True)
    file.write_text(f"shop,purchase_date,customer_id\ns1,{DAY},{key}\ns2,{DAY},7\n")
    page = Path(project.settings.reports, "expectations", "shops", "visits", "1998-06-02", "index.html")
    page.parent.mkdir(parents=True)
    page.write_text(f"<td>{key}</td>")
    scope = scope_of_all("customer_id", {each.name: each for each in (one, shops, more)})
    told = list(Erasure(Place(project.lake, project.settings, store, Clock()), scope, key).run())
    assert {"landing: visits: 1", "events/visits: 1", "quarantine/visits: 1"} <= set(told)
    assert any(line.startswith("shops: its stream was stopped and its state removed") for line in told)
    assert traces(project, key) == []
    assert keys(project, "events/visits", "shop") == {"s2"}


def test_who_read_a_key_before_it_was_erased_shows_nothing(
    project: Project, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.deliver(DAY, purchases(DAY, 45))

    def erased_before(step: str, key: str) -> None:
        name = step.rpartition(".")[2]
        real: Callable[..., None] = getattr(__import__(step.rpartition(".")[0], fromlist=[name]), name)

        def late(*given: object) -> None:
            begin(project, store, key)
            real(*given)

        monkeypatch.setattr(step, late)

    erased_before("jobs.ingest._append", KEY)
    with pytest.raises(Fenced, match="a key was erased while this attempt was at work"):
        ingest(project.run(DAY), [DAY])
    assert keys(project, EVENTS, "customer_id") == set()
    monkeypatch.undo()
    ingest(project.run(DAY), [DAY])
    assert len(keys(project, EVENTS, "customer_id") - {KEY}) == 44
    model = register_small(project.settings.mlflow_uri, tmp_path / "report")
    erased_before("jobs.score.replace_partitions", "00041")
    with pytest.raises(Fenced, match="a key was erased while this attempt was at work"):
        scored(project, model, DAY)
    assert keys(project, SCORES, "key") == set()
    monkeypatch.undo()
    scored(project, model, DAY)
    assert keys(project, SCORES, "key") == {f"{number:05d}" for number in range(1, 46)} - {KEY, "00041"}


def test_a_key_that_is_erased_as_an_attempt_takes_new_fences_does_not_come_in(
    project: Project, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.deliver(DAY, purchases(DAY, 45))
    real, append = Target.fences, _append_once

    def erased_before(target: Target) -> tuple[Fence, Fence]:
        begin(project, store)
        return real(target)

    def overtaken(*_: object) -> None:
        monkeypatch.setattr("jobs.ingest._append_once", append)
        monkeypatch.setattr(Target, "fences", erased_before)
        raise Fenced("a live event came first")

    monkeypatch.setattr("jobs.ingest._append_once", overtaken)
    with pytest.raises(Fenced, match="a key was erased while this attempt was at work"):
        ingest(project.run(DAY), [DAY])
    assert keys(project, EVENTS, "customer_id") == set()


def test_what_is_replaced_while_a_key_is_erased_is_kept_without_it(
    project: Project, store: Store, tmp_path: Path
) -> None:
    project.deliver(DAY, purchases(DAY, 45))
    ingest(project.run(DAY), [DAY])
    first, other = (register_small(project.settings.mlflow_uri, tmp_path / "report", seed=seed) for seed in (1, 2))
    scored(project, first, DAY)
    begin(project, store)
    scored(project, other, DAY)
    for table in ("scores_superseded", "features_superseded"):
        kept = keys(project, f"{table}/{NAME}", "key")
        assert (len(kept), KEY in kept) == (44, False), table


def test_a_score_is_computed_again_without_the_rows_of_erased_keys(project: Project, store: Store) -> None:
    project.deliver(DAY, purchases(DAY, 45))
    ingest(project.run(DAY), [DAY])
    begin(project, store)
    run, versions = project.run(DAY), {KEY: 0, "00001": 0}
    row = ScoreRow("batch", "00001", 0.5, run.as_of, Model("m", "1", "digest"), 0, (), "test")
    for one, known in ((row, 44), (replace(row, kind="stream"), 1)):
        stood = _as_it_stood(run, EVENTS, [one], versions)
        assert KEY not in {each.customer_id for each in stood.collect()}
        assert stood.count() == known


def test_an_attempt_whose_files_were_removed_ends_though_its_next_write_succeeds(project: Project) -> None:
    staging = project.run(DAY).staging("any")
    with staging.attempt() as own:
        project.lake.files.delete(own.folder)
        with pytest.raises(Fenced, match="another attempt took over, or a key is erased"):
            own.write(project.spark.range(3).toDF("n"), "rows")
    assert not project.lake.files.has(own.folder)


def test_a_landing_file_that_cannot_be_read_is_told_before_anything_is_touched(project: Project, store: Store) -> None:
    project.deliver_bytes(DAY, gzip.compress(b"customer_id,purchase_date,cds,amount\n" * 99)[:-9], "cut.csv.gz")
    with pytest.raises(FileFault, match=r"cut\.csv\.gz: it cannot be read"):
        list(erasure(project, store).run())
    assert not project.lake.has("erasures")
    assert not store.ask("EXISTS", stream_wish_key(NAME))


def test_whatever_ends_an_erasure_says_which_streams_wait_for_it(
    project: Project, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def cut(_: object) -> None:
        raise StoreUnavailable("Redis is away")

    monkeypatch.setattr(Erasure, "_looks", cut)
    with pytest.raises(StoreUnavailable):
        list(erasure(project, store).run())
    assert "the streams of purchase_propensity stand still until this erasure is run again" in caplog.text
    assert store.ask("EXISTS", stream_wish_key(NAME))


def test_a_stream_that_another_erasure_has_stopped_runs_again_after_each_of_them(
    project: Project, store: Store
) -> None:
    first, second = erasure(project, store, "1"), erasure(project, store, "2")
    assert first._begin() == {NAME}
    first._streams.stop()
    assert second._begin() == {NAME}
    first._end()
    assert second._begin() == {NAME}, "its own row says so"
    assert [row["key_hash"] for row in Tombstones(project.settings).unended] == [second.mark]


@pytest.mark.parametrize("does", ["begins", "ends"])
def test_a_stream_runs_again_whatever_another_erasure_does_while_redis_is_asked(
    project: Project, store: Store, monkeypatch: pytest.MonkeyPatch, does: str
) -> None:
    first, second = erasure(project, store, "1"), erasure(project, store, "2")
    real = Streams.unstopped

    def stopped() -> None:
        first._begin()
        first._streams.stop()

    def meanwhile(streams: Streams) -> list[str]:
        monkeypatch.undo()
        if does == "begins":
            stopped()
            return real(streams)
        found = real(streams)
        first._streams.release([NAME])
        first._end()
        return found

    if does == "ends":
        stopped()
    monkeypatch.setattr(Streams, "unstopped", meanwhile)
    assert any(NAME in line for line in list(second.run()))
    assert not store.ask("EXISTS", stream_wish_key(NAME))


def test_a_stream_that_was_started_before_an_erasure_is_run_again_is_on_record(project: Project, store: Store) -> None:
    store.ask("SET", stream_wish_key(NAME), 1)
    assert erasure(project, store)._begin() == set()
    store.unlink([stream_wish_key(NAME)])
    assert erasure(project, store)._begin() == {NAME}
    store.ask("SET", stream_wish_key(NAME), 1)
    assert erasure(project, store)._begin() == {NAME}
    assert len(Tombstones(project.settings).unended) == 2


def test_what_nobody_declares_any_more_is_named_before_a_key_goes_out_of_everything(
    project: Project, store: Store
) -> None:
    declared = load_pipelines(project.settings.pipelines)
    project.deliver(DAY, purchases(DAY, 5))
    ingest(project.run(DAY), [DAY])
    store.register(NAME)
    refuse_undeclared(project.lake, store, project.settings.reports, declared)
    for name in ("events/old", "scores/churn", "quality/churn"):
        project.lake.files.make_folder(name)
    store.register("churn")
    for name in (NAME, "old"):
        Path(project.settings.reports, "expectations", name).mkdir(parents=True)
    named = r"declares events/old, scores/churn, churn \(in Redis\), old \(in .*/reports\), which"
    with pytest.raises(UndeclaredData, match=named):
        refuse_undeclared(project.lake, store, project.settings.reports, declared)
