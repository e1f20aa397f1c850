"""The writers' half of the codec: packs sorted arrays into blocks, unpacks and audits them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.errors import BlockCorrupt, HashCollision, LayoutError
from serving.layout import HASH_BYTES, HEADER, STRUCTS, ColumnType, Layout

Hashes = npt.NDArray[np.uint64]
Column = npt.NDArray[Any]

MOST_KEYS = 2**16 - 1  # the header counts keys in 16 bits
HEADERS = np.dtype([("format", "<u2"), ("count", "<u2"), ("token", "<u4")])  # as `HEADER` has them
DTYPES: dict[ColumnType, np.dtype[Any]] = {kind: np.dtype(codec.format) for kind, codec in STRUCTS.items()}


@dataclass(frozen=True)
class Tally:
    """How many rows, and the sum modulo 2^64 of a digest of each: parts add up to the whole, in any order."""

    rows: int = 0
    checksum: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.rows + other.rows, (self.checksum + other.checksum) % 2**64)


def tally(hashes: Hashes, columns: Sequence[Column]) -> Tally:
    """Return the tally of rows given as hashes (n,) and columns, each (n,), in any order of rows."""
    digests = _mixed(hashes)
    for column in columns:
        bits = np.ascontiguousarray(column).view(f"<u{column.dtype.itemsize}")
        digests = _mixed(digests ^ bits.astype(np.uint64))
    return Tally(len(hashes), int(digests.sum(dtype=np.uint64)))


def pack(layout: Layout, token: int, hashes: Hashes, columns: Sequence[Column]) -> bytes:
    """Return one block of hashes (n,), ascending, and their columns, each (n,) of the layout's type.

    Raises `LayoutError` for more keys than a block's header can count.
    """
    return next(_blocks(layout, token, np.array([0, len(hashes)]), hashes, columns))


def pack_buckets(
    layout: Layout, token: int, buckets: range, hashes: Hashes, columns: Sequence[Column]
) -> Iterator[tuple[int, bytes]]:
    """Yield (bucket, block) for each of `buckets`, empty ones too, from all rows of these buckets.

    Hashes (n,) ascend, columns are (n,) each. Raises `HashCollision` for two equal hashes, and `LayoutError` for
    hashes out of order or of other buckets, for a column of another type, and for a value that is not finite.
    """
    _check_hashes(hashes)
    _check_columns(layout, len(hashes), columns)
    owners = buckets_of(layout, hashes)
    if len(owners) and not (owners[0] in buckets and owners[-1] in buckets):
        raise LayoutError(f"hashes of buckets {owners[0]} to {owners[-1]} given for {buckets}: partition by bucket")
    bounds = np.searchsorted(owners, np.arange(buckets.start, buckets.stop + 1, dtype=np.uint64))
    yield from zip(buckets, _blocks(layout, token, bounds, hashes, columns), strict=True)


def _blocks(
    layout: Layout, token: int, bounds: npt.NDArray[np.int64], hashes: Hashes, columns: Sequence[Column]
) -> Iterator[bytes]:
    """Yield the blocks of the rows from each of `bounds` (blocks + 1,) to the next.

    They are cut from the bytes of whole arrays: arrays of a few dozen numbers cost more to make than to copy.
    """
    counts = np.diff(bounds)
    if len(counts) and counts.max() > MOST_KEYS:
        raise LayoutError(f"a block of {counts.max()} keys: {MOST_KEYS} is the most; use more buckets")
    headers = np.empty(len(counts), HEADERS)
    headers["format"], headers["count"], headers["token"] = layout.format, counts, token & 0xFFFFFFFF
    sources = [(each.tobytes(), each.itemsize) for each in (hashes, *columns)]
    before = headers.tobytes()
    for place, (start, end) in enumerate(pairwise(bounds.tolist())):
        header = before[place * HEADER.size : (place + 1) * HEADER.size]
        yield b"".join([header, *[source[start * size : end * size] for source, size in sources]])


def unpack(layout: Layout, token: int, block: bytes) -> tuple[Hashes, list[Column]]:
    """Return hashes (n,) and columns (n,) of a block, as views of its bytes; the inverse of `pack`.

    Raises `BlockCorrupt` where the block is not one of generation `token`.
    """
    count = layout.count(block, token)
    hashes = np.frombuffer(block, np.dtype("<u8"), count, HEADER.size)
    columns, offset = [], HEADER.size + count * HASH_BYTES
    for _, kind in layout.columns:
        columns.append(np.frombuffer(block, DTYPES[kind], count, offset))
        offset += count * DTYPES[kind].itemsize
    return hashes, columns


def audit(layout: Layout, token: int, blocks: Sequence[tuple[int, bytes]]) -> Tally:
    """Return the tally of (bucket, block) pairs read back, or raise `BlockCorrupt` where no reader could rely on one.

    One by one, a thousand of them would take nine times as long.
    """
    if not blocks:
        return Tally()
    parts = [unpack(layout, token, block) for _, block in blocks]
    hashes = np.concatenate([part for part, _ in parts])
    owners = np.repeat(np.array([bucket for bucket, _ in blocks], np.uint64), [len(part) for part, _ in parts])
    strays = buckets_of(layout, hashes) != owners
    _refuse_first(token, owners[strays], "keys of another bucket")
    falls = (hashes[:-1] >= hashes[1:]) & (owners[:-1] == owners[1:])
    _refuse_first(token, owners[1:][falls], "hashes out of order")
    return tally(hashes, [np.concatenate(column) for column in zip(*(columns for _, columns in parts), strict=True)])


def _refuse_first(token: int, buckets: Hashes, fault: str) -> None:
    """Raise `BlockCorrupt` for the first of the buckets that have a fault."""
    if len(buckets):
        raise BlockCorrupt(f"bucket {buckets[0]} of generation {token}: {fault}; publish the generation again")


def buckets_of(layout: Layout, hashes: Hashes) -> Hashes:
    """Return the bucket of each hash, both (n,): `Layout.bucket_of` of arrays."""
    shift = np.uint64(32)
    return ((hashes >> shift) * np.uint64(layout.buckets)) >> shift


def _check_hashes(hashes: Hashes) -> None:
    if hashes.dtype != np.uint64:
        raise LayoutError(f"hashes are {hashes.dtype}, not uint64: view Spark's BIGINT as uint64")
    if bool(np.any(hashes[:-1] > hashes[1:])):
        raise LayoutError("hashes out of order: sort them as unsigned numbers")
    same = np.flatnonzero(hashes[:-1] == hashes[1:])
    if len(same):
        raise HashCollision(f"hash {hashes[same[0]]} stands for two keys: publish with another salt")


def _check_columns(layout: Layout, rows: int, columns: Sequence[Column]) -> None:
    for (name, kind), column in zip(layout.columns, columns, strict=True):
        if column.dtype != DTYPES[kind] or column.shape != (rows,):
            raise LayoutError(f"column {name} is {column.dtype} {column.shape}, not {kind} ({rows},): cast it first")
        if not bool(np.all(np.isfinite(column))):
            raise LayoutError(f"column {name} holds values that are not finite: score those keys, or leave them out")


def _mixed(bits: Hashes) -> Hashes:
    """Return splitmix64's finaliser of each number (Steele, Lea, Flood 2014): every bit in moves half of those out."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
