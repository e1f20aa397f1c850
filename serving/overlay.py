"""The overlay: fresher values of single keys beside a generation, one small hash a bucket; the newest as_of wins."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from math import isfinite

from redis.crc import key_slot

from serving.errors import BlockCorrupt, LayoutError
from serving.head import Head, Overlay
from serving.keys import overlay_key
from serving.layout import EXACT, STRUCTS, Layout, Value
from serving.store import Store, batches
from serving.wire.route import Command

FORMAT = 2
# Format, arm (0: the first), as_of in microseconds, version of the events; then the columns of the layout.
PREFIX = struct.Struct("<BBqq")
AT_ONCE = 200  # entries in one script: some 0.2 ms in which Redis does nothing else
ROUND_TRIP = 20  # scripts

# Both read the as_of behind format and arm; doubles hold microseconds exactly below 2^53.
WRITE = """
local written = 0
for i, name in ipairs(KEYS) do
  local field, entry = ARGV[2 * i - 1], ARGV[2 * i]
  local held = redis.call('HGET', name, field)
  local newer = not held
  if held then
    local was_as_of, was_version = struct.unpack('<i8i8', held, 3)
    local as_of, version = struct.unpack('<i8i8', entry, 3)
    newer = was_as_of < as_of or (was_as_of == as_of and was_version < version)
  end
  if newer then
    redis.call('HSET', name, field, entry)
    written = written + 1
  end
end
return written
"""
DROP = """
local dropped = 0
for _, name in ipairs(KEYS) do
  local entries = redis.call('HGETALL', name)
  for i = 1, #entries, 2 do
    if struct.unpack('<i8', entries[i + 1], 3) <= tonumber(ARGV[1]) then
      dropped = dropped + redis.call('HDEL', name, entries[i])
    end
  end
end
return dropped
"""


@dataclass(frozen=True)
class Fresh:
    """A value of one key that is fresher than the generation: as_of in microseconds, values by the layout's columns.

    Of two with one as_of the one that knows more is the newer: that was made from the higher `version` of the events.
    """

    key: str
    as_of: int
    values: tuple[Value, ...]
    version: int = 0


@dataclass(frozen=True)
class EntryCodec:
    """How one overlay entry is packed, by the columns of a layout."""

    layout: Layout

    @cached_property
    def _packer(self) -> struct.Struct:
        return struct.Struct("<" + "".join(STRUCTS[kind].format[1:] for _, kind in self.layout.columns))

    def pack(self, fresh: Fresh) -> bytes:
        """Return the entry's bytes, or raise `LayoutError` where no answer could tell what they would say."""
        if not (-EXACT < fresh.as_of < EXACT and all(map(isfinite, fresh.values))):
            raise LayoutError(_untellable(fresh.as_of, fresh.values))
        return PREFIX.pack(FORMAT, 0, fresh.as_of, fresh.version) + self._packer.pack(*fresh.values)

    def fresh(self, key: str, entry: bytes) -> Fresh:
        """Return the entry of a key with all that it says, or raise as `unpack` does."""
        as_of, values = self.unpack(entry)
        return Fresh(key, as_of, values, PREFIX.unpack_from(entry)[3])

    def unpack(self, entry: bytes) -> tuple[int, tuple[Value, ...]]:
        """Return as_of and values of an entry, or raise `BlockCorrupt` where this version cannot read it."""
        if len(entry) != PREFIX.size + self._packer.size or entry[0] != FORMAT:
            raise BlockCorrupt(f"an overlay entry of {len(entry)} bytes, format {entry[:1].hex()}: publish again")
        as_of, values = PREFIX.unpack_from(entry)[2], self._packer.unpack_from(entry, PREFIX.size)
        if -EXACT < as_of < EXACT:
            for value in values:  # a loop costs a lookup a fifth of what `all` does
                if not isfinite(value):
                    break
            else:
                return as_of, values
        raise BlockCorrupt(_untellable(as_of, values))


def _untellable(as_of: int, values: tuple[Value, ...]) -> str:
    return f"an overlay entry as of {as_of} with {values}: write microseconds since 1970, and finite values"


class OverlayStore:
    """The writers' side of the overlay; methods raise `StoreUnavailable` and `StoreRefused`."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def write(self, head: Head, entries: Iterable[Fresh]) -> int:
        """Write what is newer than what the overlay of the head's epoch has, and return how many that were.

        Safe to run again with the same entries: an equal as_of changes nothing. The head must declare an overlay.
        """
        codec, places = EntryCodec(head.layout), _Places(head)
        triples = ((places.name(one.key), one.key.encode(), codec.pack(one)) for one in entries)
        return sum(self._run(WRITE, triples))

    def drop_overtaken(self, head: Head) -> int:
        """Drop the entries of the head's epoch that are not newer than its generation, and return how many.

        Only once no reader can hold an earlier head: the entry may be the newest value that it knows.
        """
        if head.overlay is None:
            return 0
        names = ((overlay_key(head.pipeline, head.epoch, bucket),) for bucket in range(head.overlay.buckets))
        return sum(self._run(DROP, names, head.as_of))

    def drop_epoch(self, pipeline: str, epoch: int, overlay: Overlay) -> int:
        """Unlink all entries of an epoch that is over, and return how many hashes that were."""
        return self.store.unlink(overlay_key(pipeline, epoch, bucket) for bucket in range(overlay.buckets))

    def entries(self, head: Head) -> Iterator[Fresh]:
        """Give all entries of the overlay of the head's epoch; `BlockCorrupt` for one that cannot be read."""
        codec, buckets = EntryCodec(head.layout), range(head.overlay.buckets) if head.overlay else range(0)
        for batch in batches(buckets, AT_ONCE):
            names = [overlay_key(head.pipeline, head.epoch, bucket) for bucket in batch]
            for flat in self.store.connection.ask([("HGETALL", name) for name in names]):
                pairs = zip(flat[::2], flat[1::2], strict=True)
                yield from (codec.fresh(key.decode(), entry) for key, entry in pairs)

    def _run(self, script: str, rows: Iterable[tuple[str | bytes, ...]], *more: int) -> Iterator[int]:
        """Run a script over rows, each a key and its arguments; yield what each call returns."""
        for batch in batches(rows, AT_ONCE * ROUND_TRIP):
            calls: list[Command] = []
            for part in self._parts(batch):
                arguments = [argument for _, *arguments in part for argument in arguments]
                calls.append(("EVAL", script, len(part), *(row[0] for row in part), *arguments, *more))
            yield from self.store.connection.ask(calls)

    def _parts(self, batch: Sequence[tuple[str | bytes, ...]]) -> Iterator[list[tuple[str | bytes, ...]]]:
        """Split a batch into what one script may touch: in a cluster, keys of one slot."""
        if not self.store.connection.sharded:
            yield from batches(batch, AT_ONCE)
            return
        for _, rows in groupby(sorted(batch, key=_slot), key=_slot):
            yield from batches(rows, AT_ONCE)


class _Places:
    """Where the keys of one overlay are."""

    def __init__(self, head: Head) -> None:
        if head.overlay is None:
            raise ValueError(f"{head.pipeline}: generation {head.token} was published without an overlay")
        self.head, self.spread = head, head.overlay.spread

    def name(self, key: str) -> str:
        return overlay_key(self.head.pipeline, self.head.epoch, self.spread.bucket_of(self.spread.hash_of(key)))


def _slot(row: tuple[str | bytes, ...]) -> int:
    name = row[0]
    return int(key_slot(name.encode() if isinstance(name, str) else name))
