"""One lookup of some keys of a pipeline: what it asks of Redis, and what it makes of the replies."""

from collections.abc import Callable, Sequence
from functools import cached_property
from math import inf
from typing import NamedTuple

from serving.errors import ServingError, TornGeneration
from serving.head import Head, Overlay
from serving.keys import around_bucket, head_key, overlay_key
from serving.layout import Row
from serving.overlay import EntryCodec
from serving.route import Command, Reply


class Fresher(NamedTuple):
    """A row of the overlay that is fresher than the generation, which may not know the key."""

    as_of: int  # microseconds since 1970 UTC
    row: Row


Found = Row | Fresher | None


class Plan:
    """A head record, and what lookups need of it, made once for all of them."""

    def __init__(self, record: bytes, head: Head) -> None:
        self.record, self.head = record, head
        self.resolve: Command = ("GET", head_key(head.pipeline))
        self.place = head.layout.placer(*around_bucket(head.pipeline, head.token))
        self.find = head.layout.finder(head.token)
        self.checked = -inf  # when the record was last read, by the monotonic clock

    @cached_property
    def codec(self) -> EntryCodec:
        """What reads an entry of the overlay."""
        return EntryCodec(self.head.layout)


Answer = Callable[[Plan, "list[Found] | ServingError"], None]


class Question:
    """Keys to look up in the generation that a plan names; `answer` takes one `Found` for each, in order, or a fault.

    Until its round trip begins, keys may be added.
    """

    __slots__ = ("answer", "begun", "entries", "hashes", "keys", "names", "plan", "torn")

    def __init__(self, plan: Plan, keys: Sequence[str], answer: Answer) -> None:
        self.plan, self.keys, self.answer = plan, keys, answer
        self.begun = self.torn = False

    def begin(self) -> None:
        """Find each key's hash, the name of its block, and the command for its entry in the overlay."""
        self.begun = True
        self.hashes, self.names = self.plan.place(self.keys)
        overlay = self.plan.head.overlay
        self.entries = self._entries(overlay) if overlay is not None else []

    def _entries(self, overlay: Overlay) -> list[Command]:
        head, spread = self.plan.head, overlay.spread
        same = head.layout.salt == spread.salt
        hashes = self.hashes if same else [spread.hash_of(key) for key in self.keys]
        names = [overlay_key(head.pipeline, head.epoch, spread.bucket_of(hashed)) for hashed in hashes]
        return [("HGET", name, key) for name, key in zip(names, self.keys, strict=True)]

    def read(self, blocks: Sequence[bytes | None], entries: Sequence[Reply]) -> list[Found]:
        """Return what the blocks and the overlay's entries hold of the keys.

        Raises `TornGeneration` where a block is missing, and `BlockCorrupt`.
        """
        if None in blocks:
            raise TornGeneration(self._lacking(blocks))
        find = self.plan.find
        found: list[Found] = [find(block, hashed) for block, hashed in zip(blocks, self.hashes, strict=True)]  # type: ignore[arg-type]  # reason: None was looked for
        for place, entry in enumerate(entries):
            if entry is not None:
                self._overlay(found, place, entry)
        return found

    def _overlay(self, found: list[Found], place: int, entry: bytes) -> None:
        as_of, row = self.plan.codec.unpack(entry)
        if as_of > self.plan.head.as_of:
            found[place] = Fresher(as_of, row)

    def _lacking(self, blocks: Sequence[bytes | None]) -> str:
        head = self.plan.head
        bucket = head.layout.bucket_of(self.hashes[blocks.index(None)])
        return f"{head.pipeline}: generation {head.token} lacks bucket {bucket}: publish it again"
