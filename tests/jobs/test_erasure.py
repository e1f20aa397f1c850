"""Erasure: nothing of a key is left on disk or in Redis, no way back lets it in, and nobody else notices."""

import gzip
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest
from deltalake import write_deltalake
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from jobs.erasure.erase import Erasure, Place
from jobs.erasure.files import Landing
from jobs.erasure.generations import Generations
from jobs.erasure.rows import Rows
from jobs.erasure.scope import scope_of
from jobs.erasure.streams import Streams
from jobs.ingest import ingest
from jobs.landing import days_between
from jobs.publication.ledger import Ledger
from jobs.publication.publish import Warrant, publish
from jobs.publication.rollback import Wish, roll_back
from jobs.publication.standing import Standing
from jobs.publication.verify import verify
from jobs.score import score
from jobs.spec import load_pipelines
from jobs.tables import live_quarantine_table, live_scores_table
from serving.clock import Clock
from serving.erasing import EraseStore
from serving.head import Head
from serving.keys import stream_wish_key
from serving.overlay import Fresh, OverlayStore
from serving.store import Store
from tests.jobs.conftest import DAY
from tests.jobs.populations import streaming
from tests.jobs.sites import NAME
from tests.jobs.stage import Stage
from tests.jobs.traces import traces, traces_in_redis
from tests.project import Project, purchases, scored
from tests.registered import register_small

KEY = "77770777"
DAYS = days_between(DAY - timedelta(days=2), DAY)
ROWS = [f"{KEY},{{day}},2,11.50", f"{KEY},{{day}},2,11.50", f"{KEY},{{day}},1,3.00"]


def delivered(project: Project) -> Project:
    """Deliver some days: with the key's rows in plain and packed files, in a row that is none, and in a file alone."""
    suite = project.settings.suites / NAME / "transactions.yaml"
    suite.write_text(suite.read_text().replace("{5}$", "{5,8}$"))  # a key whose bytes nothing else has by chance
    for number, day in enumerate(DAYS):
        mine = [row.format(day=day) for row in ROWS[: 1 + number % 3]]
        rows = [*purchases(day, 30, first=1 + 10 * number), *mine, f"{number:05d},{day},1,1.00"]
        if number % 2:
            packed = gzip.compress(
                ("\n".join(["customer_id,purchase_date,cds,amount", *rows]) + "\n").encode(), mtime=0
            )
            project.deliver_bytes(day, packed, "transactions.csv.gz")
        else:
            project.deliver(day, [*rows, f"{KEY},{day},x"] if number == 2 else rows)
    project.deliver(DAY, [f"{KEY},{DAY},1,9.00"], "alone.csv")
    return project


@pytest.fixture(scope="module")
def stage(spark: SparkSession, jobs_redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """Three days of purchases; the last one is scored, and live for the second time."""
    with Store(jobs_redis_url) as store:
        store.ask("FLUSHDB")
    folder = tmp_path_factory.mktemp("erased") / "a project"
    folder.mkdir()
    declared = delivered(streaming(Project(folder, spark)))
    ingest(declared.run(DAY), DAYS)
    model = register_small(declared.settings.mlflow_uri, declared.folder / "report")
    run = scored(declared, model, DAY)
    assert [publish(run, jobs_redis_url) for _ in range(2)] == ["live", "live"]
    declared.lake.create(live_scores_table(NAME))
    declared.lake.create(live_quarantine_table(NAME))
    return Stage(declared, jobs_redis_url)


@pytest.fixture
def store(stage: Stage) -> Iterator[Store]:
    with Store(stage.url) as store:
        yield store


@pytest.fixture
def erased(stage: Stage, store: Store) -> None:
    list(erasure(stage, store).run())


def erasure(stage: Stage, store: Store, key: str = KEY) -> Erasure:
    project = stage.project
    place = Place(project.lake, project.settings, store, Clock())
    return Erasure(place, scope_of(project.pipeline(), load_pipelines(project.settings.pipelines)), key, "asked to")


def leaked(stage: Stage, store: Store, key: str = KEY) -> list[object]:
    """Return where the key is."""
    return [*traces(stage.project, key), *traces_in_redis(store, key)]


def test_nothing_is_left_and_nobody_else_notices(stage: Stage, store: Store) -> None:
    project, lake = stage.project, stage.project.lake
    before = {name: lake.read(name).where(f"{column} <> '{KEY}'").collect() for name, column in TABLES.items()}
    live = store.head(NAME)
    assert live is not None
    assert len(traces(project, KEY)) > 5
    assert EraseStore(store, KEY).find(live) is not None
    OverlayStore(store).write(live, [Fresh(KEY, live.as_of + 1, (0.5,)), Fresh("00001", live.as_of + 1, (0.5,))])
    state = Path(project.settings.lake, "streams", NAME, "query", "state", "1.sst")
    state.parent.mkdir(parents=True)
    state.write_text(KEY)
    told = "\n".join(erasure(stage, store).run())
    assert "its stream was stopped and its state removed" in told
    assert not store.ask("EXISTS", stream_wish_key(NAME))
    assert "landing: transactions: 8" in told
    assert leaked(stage, store) == []
    for name, rows in before.items():
        assert sorted(map(str, lake.read(name).collect())) == sorted(map(str, rows)), name
    left = sound(stage, store, DAY)
    assert (left.rows, left.order) == (live.rows - 1, live.order)
    assert [entry.key for entry in OverlayStore(store).entries(left)] == ["00001"]
    record = lake.read("erasures").orderBy("at").collect()
    assert [(row.event, row.reason, KEY in str(row)) for row in record] == [
        ("begun", "asked to", False),
        ("done", "asked to", False),
    ]


@pytest.mark.usefixtures("erased")
def test_no_way_back_lets_it_in(stage: Stage, store: Store) -> None:
    """The old file again, a late one, a past day, an append past our code, republish and rollback."""
    project, lake = stage.project, stage.project.lake
    events, days = lake.read(EVENTS).count(), DAYS
    ingest(project.run(DAY), days)
    assert lake.read(EVENTS).count() == events, "rewritten files count as what was delivered"
    for name, day in (("late.csv", DAY), ("alone.csv", DAYS[0])):
        project.deliver(day, [f"{KEY},{day},2,11.50", f"00901,{day},1,1.00", f"{KEY},{day},2,11.50,more"], name)
        ingest(project.run(day), [day])
    assert lake.read(EVENTS).where(f"customer_id = '{KEY}'").isEmpty()
    assert lake.read(QUARANTINE).where(f"contains(raw, '{KEY}')").isEmpty()
    assert lake.read(EVENTS).count() == events + 2
    past = days[1]
    write_raw(project)
    score(project.run(past), *pinned(stage, store))
    assert lake.read(f"scores/{NAME}").where(f"key = '{KEY}'").isEmpty()
    assert lake.read(f"features/{NAME}").where(f"key = '{KEY}'").isEmpty()
    back = roll_back(project.pipeline(), store, Ledger.of(project.settings, NAME, Clock()), Wish())
    assert "blocks are as the table says" in verify(project.run(DAY), stage.url, back)
    store.ask("FLUSHDB")
    lost = Standing.seen(store, Ledger.of(project.settings, NAME, Clock()), NAME).lost
    assert lost == back
    assert publish(project.run(DAY), stage.url, Warrant("republished", "Redis was emptied", lost)) == "live"
    assert "blocks are as the table says" in verify(project.run(DAY), stage.url, head(store))
    assert EraseStore(store, KEY).find(head(store)) is None
    store.ask("SET", stream_wish_key(NAME), 1)
    told = "\n".join(erasure(stage, store).run())
    assert leaked(stage, store) == []
    assert f"{EVENTS}: 1" in told
    assert "stream" not in told
    assert store.ask("EXISTS", stream_wish_key(NAME)), "what somebody stopped stays stopped"
    sound(stage, store, DAY)


def sound(stage: Stage, store: Store, day: date) -> Head:
    """Return the live head, if ledger, table and Redis agree on it."""
    live, ledger = head(store), Ledger.of(stage.project.settings, NAME, Clock())
    assert ledger.read().last == live
    assert "blocks are as the table says" in verify(stage.project.run(day), stage.url, live)
    return live


def head(store: Store) -> Head:
    found = store.head(NAME)
    assert found is not None
    return found


def pinned(stage: Stage, store: Store) -> tuple[str, str]:
    model = head(store).model
    return model.version, model.digest


def write_raw(project: Project) -> None:
    """Append the key's events again, past our code: as anybody may."""
    path = project.settings.table(EVENTS)
    row = project.lake.read(EVENTS).where("day = DATE'1998-05-30'").limit(1).withColumn("customer_id", F.lit(KEY))
    write_deltalake(path, row.withColumn("event_id", F.lit("raw")).toArrow(), mode="append")


class Killed(BaseException):
    """The end of a process, which no handler of a fault sees."""


STEPS: list[tuple[type, str]] = [
    (Streams, "stop"), (Generations, "fence"), (Landing, "_record"), (Generations, "correct"), (Rows, "_deleted"),
    (EraseStore, "drop"), (Generations, "_rewrite_head"), (EraseStore, "drop_fresh"), (Rows, "sweep"),
    (Erasure, "_left"), (Streams, "release"), (Erasure, "_end"),
]  # fmt: skip


def test_what_is_killed_at_any_step_is_ended_by_the_next(
    stage: Stage, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each dies right after the first time that it has done its step, which is before the one that follows."""
    store.unlink([stream_wish_key(NAME)])
    mine = [row.key for row in stage.project.lake.read(f"scores/{NAME}").where("as_of_date = '1998-06-02'").collect()]
    key, rows = min(mine), head(store).rows

    for owner, name in STEPS:
        real = getattr(owner, name)

        def killed(*given: object, real: Callable[..., object] = real) -> None:
            real(*given)
            raise Killed

        with monkeypatch.context() as patched:
            patched.setattr(owner, name, killed)
            with pytest.raises(Killed):
                list(erasure(stage, store, key).run())
    assert "its stream was stopped" in "".join(erasure(stage, store, key).run()), "though another process stopped it"
    for name, column in (*TABLES.items(), (f"scores_live/{NAME}", "key")):
        assert stage.project.lake.read(name).where(f"{column} = '{key}'").isEmpty()
    assert sound(stage, store, DAY).rows == rows - 1


EVENTS, QUARANTINE = "events/transactions", "quarantine/transactions"
TABLES = {EVENTS: "customer_id", f"scores/{NAME}": "key", f"features/{NAME}": "key"}
