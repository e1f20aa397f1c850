"""A shop whose generation of this morning is live, with its stream: what happens, and what the batch says of it."""

import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path
from threading import Event

import pyarrow as pa
from pyspark.sql.streaming.query import StreamingQuery

from jobs.features import counted_once, features, with_validity
from jobs.ingest import ingest
from jobs.publication.publish import publish
from jobs.registry import fetch
from jobs.run import as_of_day
from jobs.scoring import score_frame
from jobs.sqlfile import pipeline_sql
from jobs.stream.batch import Batches
from jobs.stream.live import LiveEvents
from jobs.stream.query import start
from jobs.stream.site import Site
from jobs.tables import VERSION, live_quarantine_table, live_scores_table
from serving.clock import Clock, instant, microseconds
from serving.head import Head
from serving.overlay import Fresh, OverlayStore
from serving.store import Store
from tests.conftest import ROOT
from tests.jobs.conftest import DAY, FIRST
from tests.jobs.populations import streaming
from tests.project import Project, bits, purchases, scored
from tests.registered import register_small

NAME, EVENTS = "purchase_propensity", "events/transactions"
NOW = as_of_day(DAY) + timedelta(hours=9)
SECOND = timedelta(seconds=1)
NUMBER = count()


def rows(*bought: tuple[str, str], ids: tuple[str, ...] = ()) -> pa.Table:
    """Return a purchase of each (customer, amount), made today."""
    today = datetime(NOW.year, NOW.month, NOW.day, tzinfo=UTC)
    return pa.table(
        {
            "event_id": list(ids) or [f"live-{next(NUMBER)}" for _ in bought],
            "event_time": pa.array([today] * len(bought), pa.timestamp("us", "UTC")),
            "customer_id": [customer for customer, _ in bought],
            "purchase_date": pa.array([today.date()] * len(bought)),
            "cds": pa.array([1] * len(bought), pa.int32()),
            "amount": pa.array([Decimal(amount) for _, amount in bought], pa.decimal128(10, 2)),
        }
    )


@dataclass
class Shop:
    """A shop whose generation of this morning is live, and its stream."""

    project: Project
    site: Site
    batches: Batches
    query: StreamingQuery
    live: LiveEvents

    @property
    def head(self) -> Head:
        head = self.site.store.head(NAME)
        assert head is not None
        return head

    def happens(self, events: pa.Table, arrived_at: datetime) -> int:
        """Append events, and wait until the stream has seen them; return the number of the append."""
        version = self.live.append(events, arrived_at)
        self.settle()
        return version

    def settle(self) -> None:
        self.query.processAllAvailable()

    def fresh(self) -> dict[str, Fresh]:
        return {entry.key: entry for entry in OverlayStore(self.site.store).entries(self.head)}

    def kept(self) -> dict[str, Fresh]:
        """Return what the table says of the newest as_of of each key, in the live epoch's model."""
        live = self.project.lake.read(f"scores_live/{NAME}").where(f"model_version = '{self.head.model.version}'")
        found: dict[str, Fresh] = {}
        for row in live.toArrow().to_pylist():
            entry = Fresh(row["key"], microseconds(row["as_of"]), (row["score"],), row["events_version"])
            if row["key"] not in found or _order(found[row["key"]]) < _order(entry):
                found[row["key"]] = entry
        return found


def _order(entry: Fresh) -> tuple[int, int]:
    return entry.as_of, entry.version


def by_batch(shop: Shop, entries: dict[str, Fresh]) -> dict[str, bytes]:
    """Return the bits that the batch's code gives at each entry's own (key, as_of, version of the events)."""
    return bits_of_batch(shop.site, shop.head, entries)


def bits_of_batch(site: Site, head: Head, entries: dict[str, Fresh]) -> dict[str, bytes]:
    """Return the same by the model of a head; all entries in one go, each with the events of its own version."""
    lake, key = site.lake, site.pipeline.entity_key
    model = fetch(site.settings.mlflow_uri, *vars(head.model).values())
    asked = lake.spark.createDataFrame(
        [(each.key, instant(each.as_of), each.version) for each in entries.values()],
        "key string, as_of timestamp, version long",
    ).persist()
    known = lake.read(EVENTS).join(asked.selectExpr(f"key AS {key}", "version"), key).where(f"{VERSION} <= version")
    events = counted_once(known.drop(VERSION, "version"), key)
    sql = pipeline_sql(site.settings, site.pipeline, "features").text
    attributes = {name: with_validity(lake.read(f"dimensions/{name}"), key) for name in site.pipeline.dimensions}
    seen = features(events, asked.select("key", "as_of"), attributes, sql)
    return bits(score_frame(seen, model.blob, model.version.features))


def seen(entries: dict[str, Fresh]) -> dict[str, tuple[int, object]]:
    """Return what a reader sees of entries: as_of and score."""
    return {key: (entry.as_of, entry.values) for key, entry in entries.items()}


def score_bits(entries: dict[str, Fresh]) -> dict[str, bytes]:
    return {key: struct.pack("<f", entry.values[0]) for key, entry in entries.items()}


@dataclass(frozen=True)
class Stock:
    """What a shop has this morning, to be copied for each test: its project, and what it has in Redis."""

    project: Project
    redis: dict[bytes, bytes]

    @classmethod
    def of(cls, project: Project, url: str, folder: Path) -> "Stock":
        """Make it, by the real jobs, in a Redis that has nothing else."""
        made = filled(streaming(project), url, folder)
        with Store(url) as store:
            keys = store.ask("KEYS", "*")
            assert isinstance(keys, list)
            return cls(made, {key: _bytes(store.ask("DUMP", key)) for key in keys})

    def copied(self, project: Project, url: str) -> None:
        """Give it to a project and a Redis that have nothing yet; models stay where they are, as none ever changes."""
        ours = shutil.ignore_patterns("declared")
        shutil.copytree(self.project.folder, project.folder, ignore=ours, dirs_exist_ok=True)
        with Store(url) as store:
            for key, value in self.redis.items():
                store.ask("RESTORE", key, 0, value, "REPLACE")


STOCK: list[Stock] = []


def _bytes(value: object) -> bytes:
    assert isinstance(value, bytes)
    return value


def stocked(project: Project, url: str, folder: Path, text: str = "stream: {}") -> Project:
    """Return a project whose pipeline declares the stream `text`, with this morning's generation live.

    What is live depends on the pipeline alone, and not on more of `text` than that it is there: so the pipeline that
    we ship is run once for all tests, and each gets a copy. Redis must have nothing yet.
    """
    if project.root != ROOT:
        return filled(streaming(project, text), url, folder)
    if not STOCK:
        STOCK.append(Stock.of(replace(project, folder=folder / "stock"), url, folder))
    STOCK[0].copied(project, url)
    return streaming(project, text)


def filled(declared: Project, url: str, folder: Path) -> Project:
    """Run the jobs of this morning, and return the project."""
    for day in (FIRST, DAY):
        declared.deliver(day, purchases(day, 30))
    ingest(declared.run(DAY), [FIRST, DAY])
    model = register_small(declared.settings.mlflow_uri, folder / "report")
    assert publish(scored(declared, model, DAY), url) == "live"
    for table in (live_scores_table(NAME), live_quarantine_table(NAME)):
        declared.lake.create(table)
    return declared


def site_of(declared: Project, store: Store, now: datetime) -> Site:
    """Return the surroundings of a project's stream, whose clock shows `now`."""
    clock = Clock(now - datetime.now(UTC))
    return Site(declared.pipeline(), declared.lake, declared.settings, clock, store, "query")


@contextmanager
def streamed(declared: Project, store: Store, now: datetime, checkpoint: Path) -> Iterator[Shop]:
    """Run the stream of a project by a clock that shows `now`."""
    site = site_of(declared, store, now)
    batches = Batches(site, Event())
    query = start(site, batches.process, str(checkpoint))
    try:
        query.processAllAvailable()
        yield Shop(declared, site, batches, query, LiveEvents(declared.settings.table(EVENTS)))
    finally:
        query.stop()


@contextmanager
def opened(project: Project, store: Store, url: str, folder: Path, text: str = "stream: {}") -> Iterator[Shop]:
    """Open a shop whose pipeline declares the stream `text`."""
    declared = stocked(project, url, folder, text)
    with streamed(declared, store, NOW + timedelta(minutes=1), folder / "checkpoint") as shop:
        yield shop
