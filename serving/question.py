"""One lookup of some keys of a pipeline: what it asks of Redis, and what it makes of the replies."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

from serving.errors import BlockCorrupt, ServingError, TornGeneration
from serving.head import Head, Overlay
from serving.keys import around_bucket, head_key, overlay_key
from serving.layout import Row
from serving.overlay import EntryCodec
from serving.wire.route import Command, Reply


class Fresher(NamedTuple):
    """A row of the overlay that is fresher than the generation, which may not know the key."""

    as_of: int  # microseconds since 1970 UTC
    row: Row


Found = Row | Fresher | ServingError | None  # where a fault is about a key, it stands in place of what is known


class Plan:
    """A head record, and what lookups need of it, made once for all of them."""

    def __init__(self, record: bytes, head: Head) -> None:
        self.record, self.head = record, head
        self.resolve: Command = ("GET", head_key(head.pipeline))
        self.place = head.layout.placer(*around_bucket(head.pipeline, head.token))
        self.find = head.layout.finder(head.token)

    @cached_property
    def codec(self) -> EntryCodec:
        """What reads an entry of the overlay."""
        return EntryCodec(self.head.layout)


Naming = Callable[[Exception], ServingError]
Answer = Callable[[Plan, "list[Found] | ServingError"], None]


class Question:
    """Keys to look up in the generation that a plan names; `answer` takes one `Found` for each, in order.

    A fault that is about all of them it takes in their place. Until its round trip begins, keys may be added.
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

    def read(self, blocks: Sequence[Reply], entries: Sequence[Reply], named: Naming) -> list[Found]:
        """Return what the blocks and the overlay's entries hold of the keys, or why that cannot be read.

        `named` names what stands for a refused reply. Raises `TornGeneration` where a block is missing for the first
        time.
        """
        find = self.plan.find
        found: list[Found]
        try:
            found = [find(block, hashed) for block, hashed in zip(blocks, self.hashes, strict=True)]
        except (TypeError, BlockCorrupt):  # dearer to look for in each lookup than to find out now whose it is
            found = [self._known(block, hashed, named) for block, hashed in zip(blocks, self.hashes, strict=True)]
        for place, entry in enumerate(entries):
            if entry is not None:
                found[place] = self._newer(found[place], entry, named)
        return found

    def _known(self, block: Reply, hashed: int, named: Naming) -> Found:
        """Return what a block holds of one hash, or why that cannot be read."""
        head = self.plan.head
        if isinstance(block, Exception):
            return named(block)
        if block is not None:
            try:
                return self.plan.find(block, hashed)
            except BlockCorrupt as fault:
                return BlockCorrupt(f"{head.pipeline}: bucket {head.layout.bucket_of(hashed)}: {fault}")
        bucket = head.layout.bucket_of(hashed)
        place = f"{head.pipeline}: generation {head.token} lacks bucket {bucket}"
        torn = TornGeneration(f"{place}: `scoreline verify --repair` mends it")
        if self.torn:
            return torn
        raise torn

    def _newer(self, found: Found, entry: Reply, named: Naming) -> Found:
        """Return an entry that is fresher, or why that cannot be known; else what was found in the block."""
        if isinstance(entry, Exception):
            return named(entry)
        try:
            as_of, row = self.plan.codec.unpack(entry)
        except BlockCorrupt as fault:
            return BlockCorrupt(f"{self.plan.head.pipeline}: {fault}")
        return Fresher(as_of, row) if as_of > self.plan.head.as_of else found
