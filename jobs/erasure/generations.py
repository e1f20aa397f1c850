"""A key out of a pipeline's generations and overlays, so that ledger, table and Redis agree again at the end."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace

from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.errors import Fenced
from jobs.lake import Lake
from jobs.publication.ledger import ERASED, REMOVED, TRIES, Entry, Generation, Ledger, head_of
from jobs.publication.ledger import rows_of as recorded_rows
from jobs.publication.partition import rows_of
from jobs.publication.retention import Retention
from jobs.spec import Pipeline
from jobs.tables import publications_table
from serving.blocks import Tally
from serving.erasing import EraseStore, row_of, without
from serving.head import Head, Overlay
from serving.store import Store

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Generations:
    """The generations of one pipeline, and one key; `mark` is what the ledger calls it."""

    pipeline: Pipeline
    lake: Lake
    store: Store
    ledger: Ledger
    key: str
    mark: str

    def fence(self) -> None:
        """Take the claim, and free what others have written: none goes live that may have been made with the key."""
        name, store = self.pipeline.name, self.store
        if not self.ledger.is_there and store.record(name) is None:
            return
        self.lake.create(publications_table(name))
        now = self.ledger.clock.now()
        wanted = Entry(as_of=now, run_id="erasure", note="erasure: whoever had begun to publish begins again")
        reserved = self.ledger.reserve(wanted, above=store.highest_token(name))
        if not store.claim(name, reserved.token):
            raise Fenced(f"{name}: a publication began at this moment; run the erasure again")
        Retention(self.pipeline, store, self.ledger).free(self.ledger.read(), claimed=reserved.token)
        self.ledger.write([(REMOVED, reserved)])

    def correct(self) -> int:
        """Put on record which generations are to lose a row, while tables and blocks still have it; return how many."""
        if not self.ledger.is_there:
            return 0
        self.ledger.admit(self.store.head(self.pipeline.name))
        return sum(self._corrected(one) for one in self._kept())

    def drop(self) -> int:
        """Take the key out of blocks, head and overlays, as it is on record; return how many had it.

        Raises:
            Fenced: another head went live at this moment, again and again.
        """
        blocks = sum(self._erase_store.drop(head) for head in map(_head, self._kept()) if head)
        self._rewrite_head()
        return blocks + self._erase_store.drop_fresh(self.pipeline.name, self._overlays())

    def found(self) -> int:
        """Return how many blocks of generations have the key."""
        return sum(self._erase_store.find(head) is not None for head in map(_head, self._kept()) if head)

    @property
    def _erase_store(self) -> EraseStore:
        return EraseStore(self.store, self.key)

    def _kept(self) -> list[Generation]:
        return [one for one in self.ledger.read().generations if one.turns and not one.removed]

    def _overlays(self) -> list[tuple[int, Overlay]]:
        heads = [turn.head for turn in self.ledger.read().turns if turn.head]
        live = self.store.head(self.pipeline.name)
        return sorted(
            {(head.epoch, head.overlay) for head in (*heads, live) if head and head.overlay}, key=lambda each: each[0]
        )

    def _corrected(self, one: Generation) -> bool:
        head = _head(one)
        row = self._row(head) if head else None
        return head is not None and row is not None and self._take_off(head, row)

    def _row(self, head: Head) -> Tally | None:
        """Return what the key adds to a generation: by its block, else by the rows that the generation was made of."""
        block = self._erase_store.find(head)
        if block is not None:
            return block.row
        buckets = range(head.layout.buckets)
        if self.store.count_blocks(head.pipeline, head.token, buckets) == len(buckets):
            return None
        made = rows_of(self.lake, head)
        return None if made is None else next(self._scores(made, head), None)

    def _scores(self, made: DataFrame, head: Head) -> Iterator[Tally]:
        sought = self.lake.spark.createDataFrame([(self.key,)], "key STRING")
        for row in made.join(F.broadcast(sought), "key", "left_semi").collect():
            yield row_of(head.layout, self.key, row.score)

    def _take_off(self, head: Head, row: Tally) -> bool:
        """Take a row off a generation in the ledger, once for each key, whoever does so for other keys meanwhile."""
        for _ in range(TRIES):
            table = DeltaTable(self.ledger.path)
            mine = [each for each in recorded_rows(table) if each["event"] == ERASED and each["token"] == head.token]
            if any(each["note"] == self.mark for each in mine):
                return False
            before = min([head, *(each for each in map(head_of, mine) if each)], key=lambda each: each.rows)
            entry = Entry.of(without(before, row), self.mark)
            try:
                self.ledger.append(table, [(ERASED, entry)], CommitProperties(max_commit_retries=0))
            except CommitFailedError:
                continue
            return True
        raise Fenced(f"{self.ledger.name}: others wrote at the same moment, {TRIES} times; run the erasure again")

    def _rewrite_head(self) -> None:
        """Give the live head the numbers that its generation has by the ledger."""
        for _ in range(TRIES):
            record, live = self.store.record(self.pipeline.name), self.store.head(self.pipeline.name)
            known = {one.token: _head(one) for one in self._kept()}
            left = known.get(live.token) if live else None
            if live is None or left is None or (live.rows, live.checksum) == (left.rows, left.checksum):
                return
            self.store.replace(record, replace(live, rows=left.rows, checksum=left.checksum))
        raise Fenced(f"{self.pipeline.name}: another head went live, {TRIES} times; run the erasure again")


def _head(one: Generation) -> Head | None:
    """Return a head of a generation with its rows and checksum, as the ledger has them."""
    return next((turn.head for turn in reversed(one.turns) if turn.head), None)
