"""Erasure in Redis: one key out of a generation's block and out of overlays; the one exception to immutability."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from serving.blocks import Column, Hashes, Tally, pack, tally, unpack
from serving.errors import StoreUnavailable
from serving.head import Head, Overlay
from serving.keys import block_key, overlay_key
from serving.layout import Layout
from serving.store import Store
from serving.wire.replication import await_replicas

TRIES = 20
# A block is rewritten only as long as it is the one that was read: a repair may be at work on it.
EXCHANGE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('UNLINK', KEYS[1])
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""


@dataclass(frozen=True)
class Block:
    """One block, and the place in it of a key that it has."""

    hashes: Hashes
    columns: list[Column]
    at: int
    raw: bytes

    @property
    def row(self) -> Tally:
        """What the key's row adds to a tally."""
        place = slice(self.at, self.at + 1)
        return tally(self.hashes[place], [column[place] for column in self.columns])

    def without(self, layout: Layout, token: int) -> bytes:
        """Return the block without the key: what a publication of the other keys would have written."""
        rest = np.arange(len(self.hashes)) != self.at
        return pack(layout, token, self.hashes[rest], [column[rest] for column in self.columns])


class EraseStore:
    """The Redis behind a store, for one key; methods raise `StoreUnavailable` and `StoreRefused`."""

    def __init__(self, store: Store, key: str) -> None:
        self.store, self.key = store, key

    def find(self, head: Head) -> Block | None:
        """Return the block of a head's generation that has the key; None where it has not, or is not there.

        Raises:
            BlockCorrupt: nobody can read that block.
        """
        raw = self.store.ask("GET", self._name(head))
        if not isinstance(raw, bytes):
            return None
        hashes, columns = unpack(head.layout, head.token, raw)
        found = np.flatnonzero(hashes == np.uint64(head.layout.hash_of(self.key)))
        return Block(hashes, columns, int(found[0]), raw) if len(found) else None

    def drop(self, head: Head) -> bool:
        """Rewrite the block of a head's generation without the key, and return whether it had it.

        A reader who holds the head finds the key unknown from then on, and every other as before.
        """
        for _ in range(TRIES):
            found = self.find(head)
            if found is None:
                return False
            rest = found.without(head.layout, head.token)
            if self.store.ask("EVAL", EXCHANGE, 1, self._name(head), found.raw, rest):
                await_replicas(self.store.connection)
                return True
        raise StoreUnavailable(f"{head.pipeline}: somebody else writes generation {head.token} all the time: try again")

    def drop_fresh(self, pipeline: str, overlays: Iterable[tuple[int, Overlay]]) -> int:
        """Drop the key's entries of overlays, each given with its epoch, and return how many there were."""
        names = [
            overlay_key(pipeline, epoch, overlay.spread.bucket_of(overlay.spread.hash_of(self.key)))
            for epoch, overlay in overlays
        ]
        dropped = self.store.connection.ask([("HDEL", name, self.key) for name in names]) if names else []
        await_replicas(self.store.connection)
        return sum(cast("list[int]", dropped))

    def _name(self, head: Head) -> str:
        return block_key(head.pipeline, head.token, head.layout.bucket_of(head.layout.hash_of(self.key)))


def row_of(layout: Layout, key: str, score: float) -> Tally:
    """Return what a key and its score add to the tally of a generation of one column, the score."""
    return tally(np.array([layout.hash_of(key)], np.uint64), [np.array([score], np.float32)])


def without(head: Head, row: Tally) -> Head:
    """Return a head whose generation has lost a row: its checksum is a sum, so a row can be taken off."""
    return replace(head, rows=head.rows - row.rows, checksum=(head.checksum - row.checksum) % 2**64)
