"""A replay of real purchases: those before a day are history, the next days' come live, the same way each time."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from infra.demo.land import by_day
from jobs.ingest import ingest
from jobs.landing import days_between
from jobs.publication.publish import DUE, Warrant, publish
from jobs.registry import ModelVersion
from jobs.run import as_of_day
from jobs.stream.replay import events_of_days
from jobs.tables import live_quarantine_table, live_scores_table
from serving.clock import microseconds
from serving.overlay import Fresh
from serving.store import Store
from tests.jobs.populations import streaming
from tests.jobs.shop import NAME, Shop, bits_of_batch, score_bits, streamed
from tests.project import Project, scored

DAY = date(1998, 5, 31)  # the last one of the history
Entries = dict[str, Fresh]


class Replay:
    """The purchases of `first` to DAY are history; those of the next `days` days come live, each day's in parts."""

    def __init__(self, folder: Path, spark: SparkSession, first: date, days: int) -> None:
        self.project, self.first, self.days = streaming(Project(folder, spark)), first, days
        self.last, bought = DAY + timedelta(days=days), by_day()
        for day in days_between(first, self.last):
            self.project.deliver(day, bought[day])
        ingest(self.project.run(DAY), days_between(first, DAY))
        self.now = as_of_day(self.last) - timedelta(hours=1)

    def begin(self, model: ModelVersion, parts_a_day: int) -> None:
        """Score the last day of the history by a model, and make what is to come."""
        scored(self.project, model, DAY)
        for table in (live_scores_table(NAME), live_quarantine_table(NAME)):
            self.project.lake.create(table)
        events = events_of_days(self.project.run(self.last), DAY + timedelta(days=1), self.last)
        self.parts = list(_parts(events, self.days * parts_a_day))

    def publish(self, url: str, warrant: Warrant = DUE) -> None:
        assert publish(self.project.run(DAY), url, warrant) == "live"

    def copied(self, folder: Path) -> "Replay":
        """Return a replay of a copy of all that there is."""
        shutil.copytree(self.project.folder, folder)
        twin = object.__new__(Replay)
        project = replace(self.project, folder=folder, registry=self.project.settings.mlflow_uri)
        twin.__dict__ |= {**vars(self), "project": project}
        return twin

    def undisturbed(self, store: Store, folder: Path) -> "Ended":
        """Play all of it, in this process, with nobody who disturbs."""
        with streamed(self.project, store, self.now, folder) as shop:
            for number, part in enumerate(self.parts):
                shop.live.append(*part)
                if number % 3 == 0:
                    shop.settle()
            shop.settle()
            return Ended.of(shop)


class Ended:
    """The end of a replay: the overlay, the newest rows of the table, and what the batch says of the same."""

    def __init__(self, fresh: Entries, kept: Entries) -> None:
        self.fresh, self.kept = fresh, kept
        self.wrong: dict[str, tuple[bytes, bytes]] = {}

    @classmethod
    def of(cls, shop: Shop) -> "Ended":
        ended = cls(shop.fresh(), kept_in(shop.project))
        found, wanted = score_bits(ended.fresh), bits_of_batch(shop.site, shop.head, ended.fresh)
        assert found.keys() == wanted.keys()
        ended.wrong = {key: (found[key], wanted[key]) for key in found if found[key] != wanted[key]}
        return ended

    def differing(self, other: "Ended") -> list[tuple[str, Fresh | None, Fresh | None]]:
        """Return whose entries differ from another's, in the overlay or in the table."""
        return [
            (key, one.get(key), two.get(key))
            for one, two in ((self.fresh, other.fresh), (self.kept, other.kept))
            for key in sorted(one.keys() | two.keys())
            if one.get(key) != two.get(key)
        ]


def kept_in(project: Project) -> Entries:
    """Return the row of each key in `scores_live` that has the newest as_of, and of these the newest version."""
    rows = DeltaTable(project.settings.table(f"scores_live/{NAME}")).to_pyarrow_table().to_pylist()
    entries = [Fresh(row["key"], microseconds(row["as_of"]), (row["score"],), row["events_version"]) for row in rows]
    return {entry.key: entry for entry in sorted(entries, key=lambda each: (each.as_of, each.version))}


def _parts(events: pa.Table, parts: int) -> Iterator[tuple[pa.Table, datetime]]:
    """Give the events in so many parts, with when they arrive; some come again, some by a clock hours behind."""
    own, size = events.drop_columns(["day"]), -(-len(events) // parts)
    for number, begin in enumerate(range(0, len(events), size)):
        part, day = own.slice(begin, size), events["day"][begin].as_py()
        arrived_at = as_of_day(day) - timedelta(hours=15 if number % 7 else 20) + timedelta(seconds=number)
        again = own.slice(begin - 3 * size, 2) if number % 7 == 4 else part.slice(0, 0)
        yield pa.concat_tables([part, again]), arrived_at
