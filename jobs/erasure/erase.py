"""Erase a key: tombstone, streams, files, ledger, tables, Redis, reports; then all is looked at once more."""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake

from jobs.erasure.files import Landing, rewritten_table
from jobs.erasure.generations import Generations
from jobs.erasure.reports import Reports
from jobs.erasure.rows import Kept, Rows, kept_tables
from jobs.erasure.scope import Scope
from jobs.erasure.secret import Secret, made_secret, read_secret
from jobs.erasure.streams import Streams
from jobs.erasure.tombstones import BEGUN, DONE, Tombstones, erasures_table
from jobs.errors import ErasureUnfinished
from jobs.lake import Lake
from jobs.publication.ledger import Ledger
from jobs.spec import Settings
from jobs.tables import ERASURES
from serving.clock import Clock
from serving.store import Store

LOG = logging.getLogger(__name__)
LOOKS = 3


@dataclass(frozen=True)
class Place:
    """Where a key is erased: lake, settings, Redis and clock."""

    lake: Lake
    settings: Settings
    store: Store
    clock: Clock


@dataclass(frozen=True)
class Erasure:
    """One key of a scope; `found` counts what was there, by place, since the command began."""

    place: Place
    scope: Scope
    key: str
    reason: str = ""
    found: Counter[str] = field(default_factory=Counter)

    def run(self) -> Iterator[str]:
        """Erase the key, and tell in lines what is done; running it again is right, and changes nothing that is done.

        Raises:
            ErasureUnfinished: the key is still somewhere, or a stream does not stop; running it again goes on.
            ErasureKeyLost: keys were erased before, and the secret by which they are told is lost.
            FileFault: a landing file cannot be read or written.
        """
        streams = self._streams
        self._left_in_landing()  # what cannot be read is told before anything is touched
        resume = self._begin()
        yield f"tombstone {self.mark[:12]}: {', '.join(self.scope.bars)} bring the key no more"
        with _standing_still(resume):
            streams.stop()
            for generations in self._generations:
                generations.fence()
            yield from self._looks()
            yield from streams.release(resume)
        self._end()  # last: who is killed before has all of it done again

    @cached_property
    def mark(self) -> str:
        """The hash by which the key is known."""
        return self._secret.hash_of(self.scope.entity_key, self.key)

    def _looks(self) -> Iterator[str]:
        for look in range(LOOKS):
            yield from self._pass()
            if not (left := self._left()):
                return
            LOG.info("%s is there again after look %d", ", ".join(left), look + 1)
        raise ErasureUnfinished(f"the key came back into {', '.join(left)} while it was erased: run it once more")

    def _pass(self) -> Iterator[str]:
        """Erase the key from all places once, and tell of those that had it."""
        for pipeline in self.scope.readers:
            self.place.lake.files.delete(f"staging/{pipeline.name}")  # who works there begins again, without the key
        for name, source in self.scope.sources.items():
            yield from self._told(f"landing: {name}", self._landing.erase(source))
        for generations in self._generations:
            generations.correct()
        for table in self._tables():
            yield from self._told(table.name, self._rows.erase(table))
        for generations in self._generations:
            yield from self._told(f"Redis: {generations.pipeline.name}", generations.drop())
        yield from self._told("reports", self._reports.erase())
        for table in self._tables():
            yield from self._told(f"files of {table.name} that no version has", self._rows.sweep(table))

    def _left(self) -> list[str]:
        """Return where the key is."""
        tables = [table.name for table in self._tables() if self._rows.count(table)]
        redis = [f"Redis: {each.pipeline.name}" for each in self._generations if each.found()]
        return [*tables, *redis, *self._left_in_landing(), *["reports"][: self._reports.count()]]

    def _left_in_landing(self) -> list[str]:
        return [f"landing: {name}" for name, source in self.scope.sources.items() if self._landing.count(source)]

    def _told(self, what: str, many: int) -> Iterator[str]:
        if many:
            self.found[what] += many
            yield f"{what}: {many}"

    def _tables(self) -> list[Kept]:
        return [table for table in kept_tables(self.scope) if self._rows.has(table)]

    def _begin(self) -> set[str]:
        """Write the tombstone, before anything else; return whose streams run again at the end."""
        lake = self.place.lake
        lake.create(erasures_table())
        lake.create(rewritten_table())
        unended, resume = self._at_work()
        mine = [row for row in unended if row["key_hash"] == self.mark]
        # One that is of less, or lets fewer streams run again, does not stand for this one if it is killed.
        if not any(set(row["sources"]) >= set(self.scope.bars) and _stopped_by(row) >= resume for row in mine):
            self._write(BEGUN, {"streams": sorted(resume)})
        return resume

    def _at_work(self) -> tuple[list[dict[str, Any]], set[str]]:
        """Return the rows of erasures that have not ended, and which of the scope's streams are to run again.

        An erasure that was killed, or is at work on another key, has stopped some: its row says which. Where one
        begins or ends while Redis is asked, all is asked again, or a stream that it has stopped would stay so.
        """
        while True:
            version, unended = self._tombstones.version, self._tombstones.unended
            running = self._streams.unstopped()
            if self._tombstones.version == version:
                stopped = {name for row in unended for name in _stopped_by(row)}
                return unended, {*running, *(each.name for each in self.scope.readers if each.name in stopped)}

    def _end(self) -> None:
        self._write(DONE, {"found": self.found})

    def _write(self, event: str, told: dict[str, object]) -> None:
        texts = {
            "entity_key": self.scope.entity_key,
            "key_hash": self.mark,
            "secret_id": self._secret.id,
            "event": event,
            "reason": self.reason,
            "told": json.dumps(told),
        }
        row = {name: pa.array([text], pa.string()) for name, text in texts.items()}
        row["sources"] = pa.array([list(self.scope.bars)], pa.list_(pa.string()))
        row["at"] = pa.array([self.place.clock.now()], pa.timestamp("us", "UTC"))
        columns = [column.name for column in erasures_table().columns]
        write_deltalake(self.place.settings.table(ERASURES), pa.table(row).select(columns), mode="append")

    @cached_property
    def _secret(self) -> Secret:
        path, rows = self.place.settings.erasure_key_file, self._tombstones.rows
        secret = read_secret(path) if rows else made_secret(path)
        self._tombstones.require(secret)
        return secret

    @cached_property
    def _tombstones(self) -> Tombstones:
        return Tombstones(self.place.settings)

    @property
    def _landing(self) -> Landing:
        return Landing(self.place.lake, self.place.settings, self.scope.entity_key, self.key, self.mark)

    @property
    def _reports(self) -> Reports:
        return Reports(self.place.settings.reports, tuple(each.name for each in self.scope.readers), self.key)

    @cached_property
    def _rows(self) -> Rows:
        return Rows(self.place.lake, self.key)

    @property
    def _streams(self) -> Streams:
        place = self.place
        return Streams(self.scope.readers, place.lake, place.settings, place.store, place.clock)

    @cached_property
    def _generations(self) -> list[Generations]:
        at = self.place
        ledgers = [(each, Ledger.of(at.settings, each.name, at.clock)) for each in self.scope.pipelines]
        return [Generations(each, at.lake, at.store, ledger, self.key, self.mark) for each, ledger in ledgers]


def _stopped_by(begun: dict[str, Any]) -> set[str]:
    """Return whose streams an erasure has stopped, and lets run again at its end."""
    return set(json.loads(begun["told"])["streams"])


@contextmanager
def _standing_still(streams: Iterable[str]) -> Iterator[None]:
    """Say of whatever ends an erasure that the streams wait for its end."""
    try:
        yield
    except BaseException:
        if names := ", ".join(sorted(streams)):
            LOG.warning("the streams of %s stand still until this erasure is run again to its end", names)
        raise
