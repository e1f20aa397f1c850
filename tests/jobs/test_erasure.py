"""Erasure: nothing of a key is left on disk or in Redis, no way back lets it in, and nobody else notices."""

import gzip

import pytest

from jobs.erasure.erase import Erasure, Place
from jobs.erasure.scope import scope_of
from jobs.ingest import ingest
from jobs.landing import days_between
from jobs.publication.publish import publish
from jobs.spec import load_pipelines
from serving.clock import Clock
from serving.erasing import EraseStore
from serving.store import Store
from tests.jobs.conftest import DAY, FIRST, NEXT
from tests.jobs.populations import streaming
from tests.jobs.sites import NAME
from tests.jobs.stage import Stage
from tests.jobs.traces import traces, traces_in_redis
from tests.project import Project, purchases, scored
from tests.registered import register_small

KEY = "77770777"
ROWS = [f"{KEY},{{day}},2,11.50", f"{KEY},{{day}},2,11.50", f"{KEY},{{day}},1,3.00"]


def delivered(project: Project) -> Project:
    """Deliver some days: with the key's rows in plain and packed files, in a row that is none, and in a file alone."""
    suite = project.settings.suites / NAME / "transactions.yaml"
    suite.write_text(suite.read_text().replace("{5}$", "{5,8}$"))  # a key whose bytes nothing else has by chance
    for number, day in enumerate(days_between(FIRST, NEXT)):
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


@pytest.fixture
def stage(project: Project, store: Store, jobs_redis_url: str) -> Stage:
    """Six days of purchases, two of them scored and published, one of them twice."""
    declared = delivered(streaming(project))
    ingest(declared.run(NEXT), days_between(FIRST, NEXT))
    model = register_small(declared.settings.mlflow_uri, declared.folder / "report")
    for day in (DAY, NEXT):
        assert publish(scored(declared, model, day), jobs_redis_url) == "live"
    return Stage(declared, jobs_redis_url)


def erasure(stage: Stage, store: Store, key: str = KEY) -> Erasure:
    project = stage.project
    place = Place(project.lake, project.settings, store, Clock())
    return Erasure(place, scope_of(project.pipeline(), load_pipelines(project.settings.pipelines)), key, "asked to")


def test_nothing_is_left_and_nobody_else_notices(stage: Stage, store: Store) -> None:
    project, lake = stage.project, stage.project.lake
    before = {name: lake.read(name).where(f"{column} <> '{KEY}'").collect() for name, column in TABLES.items()}
    assert len(traces(project, KEY)) > 10
    live = store.head(NAME)
    assert live is not None
    assert EraseStore(store, KEY).find(live) is not None
    told = list(erasure(stage, store).run())
    print("\n".join(told))
    assert traces(project, KEY) == []
    assert traces_in_redis(store, KEY) == []
    for name, rows in before.items():
        assert sorted(map(str, lake.read(name).collect())) == sorted(map(str, rows)), name
    head = stage.sound(project.run(NEXT))
    assert (head.rows, head.order) == (live.rows - 1, live.order)


TABLES = {"events/transactions": "customer_id", f"scores/{NAME}": "key", f"features/{NAME}": "key"}
