"""Where a key lives in a generation, and how one value is read from a block; `blocks` writes what this reads."""

import struct
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Annotated, Literal

import xxhash
from pydantic import Field
from pydantic.dataclasses import dataclass

from serving.errors import BlockCorrupt

ColumnType = Literal["float32", "float64", "int32", "uint16", "bool"]
Value = float | int | bool
Row = tuple[Value, ...]  # in the order of the layout's columns

STRUCTS: dict[ColumnType, struct.Struct] = {
    "float32": struct.Struct("<f"),
    "float64": struct.Struct("<d"),
    "int32": struct.Struct("<i"),
    "uint16": struct.Struct("<H"),
    "bool": struct.Struct("<?"),
}
HEADER = struct.Struct("<HHI")  # format, count of keys, low 32 bits of the token
HASH_BYTES = 8
EXACT = 2**53  # below it a double holds every whole number
SCORE = "score"  # the column that a lookup answers with
SPARK_SEED = 42  # the seed with which Spark's xxhash64 starts


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the keys of one generation are spread over blocks, and what a block holds for each of them."""

    format: Literal[1] = 1
    buckets: Annotated[int, Field(ge=1, lt=2**31)]
    salt: Annotated[int, Field(ge=0, lt=EXACT)] = 0
    columns: Annotated[tuple[tuple[str, ColumnType], ...], Field(min_length=1)] = ((SCORE, "float32"),)

    @classmethod
    def fitting(cls, rows: int, keys_per_block: int, salt: int = 0) -> "Layout":
        """Return the layout of one float32 score a key, with `keys_per_block` keys in a block on average."""
        return cls(buckets=max(1, -(-rows // keys_per_block)), salt=salt)

    @cached_property
    def seed(self) -> int:
        """Spark folds several columns into one hash: that of the first is the seed of the second."""
        return xxhash.xxh64_intdigest(self.salt.to_bytes(8, "little"), SPARK_SEED)

    @cached_property
    def places(self) -> dict[str, int]:
        """The place of each column, by its name, in a row."""
        return {name: place for place, (name, _) in enumerate(self.columns)}

    @cached_property
    def width(self) -> int:
        """Bytes of a block for each key."""
        return HASH_BYTES + sum(STRUCTS[kind].size for _, kind in self.columns)

    def hash_of(self, key: str) -> int:
        """Return the unsigned 64-bit hash of `key`: Spark's `xxhash64(salt, key)`."""
        return xxhash.xxh64_intdigest(key.encode(), self.seed)

    def bucket_of(self, hashed: int) -> int:
        """Return the bucket of a hash; it never falls as the hash rises, so hash order is bucket order."""
        return ((hashed >> 32) * self.buckets) >> 32

    def placer(self, before: str, after: str) -> Callable[[Sequence[str]], tuple[list[int], list[str]]]:
        """Return what gives the hashes of keys and the names of their blocks: `before`, then the bucket, then `after`.

        It does for many keys what `hash_of` and `bucket_of` do for one, in a fraction of the time.
        """
        seed, buckets, hash_of = self.seed, self.buckets, xxhash.xxh64_intdigest

        def place(keys: Sequence[str]) -> tuple[list[int], list[str]]:
            hashes = [hash_of(key.encode(), seed) for key in keys]
            return hashes, [f"{before}{((hashed >> 32) * buckets) >> 32}{after}" for hashed in hashes]

        return place

    def hash_sql(self, key: str) -> str:
        """Return the Spark SQL of `hash_of` for the string expression `key`: a BIGINT of the same 64 bits."""
        return f"xxhash64({self.salt}L, {key})"

    def bucket_sql(self, hashed: str) -> str:
        """Return the Spark SQL of `bucket_of` for the BIGINT expression `hashed`: an INT."""
        return f"CAST(shiftrightunsigned(shiftrightunsigned({hashed}, 32) * {self.buckets}L, 32) AS INT)"

    def count(self, block: bytes, token: int) -> int:
        """Return how many keys a block holds, or raise `BlockCorrupt` where it is not one of generation `token`."""
        if len(block) < HEADER.size:
            raise BlockCorrupt(f"a block of generation {token} has {len(block)} bytes: `verify --repair` mends it")
        written, count, low = HEADER.unpack_from(block)
        expected = HEADER.size + count * self.width
        if (written, low, len(block)) != (self.format, token & 0xFFFFFFFF, expected):
            raise BlockCorrupt(
                f"a block of generation {token} has format {written}, token {low} and {len(block)} bytes, "
                f"{expected} by its count: `verify --repair` mends it"
            )
        return int(count)

    def finder(self, token: int) -> Callable[[bytes, int], Row | None]:
        """Return what finds, in a block of the generation `token`, the values of one hash.

        They come in the order of the columns; None where the block does not have the hash. It raises `BlockCorrupt`
        where the block is not one of that generation.
        """
        whole, width, unpack_header = HEADER.size, self.width, HEADER.unpack_from
        sound, fields = (self.format, token & 0xFFFFFFFF), self._fields
        alone, size = fields[0][0].unpack_from if len(fields) == 1 else None, fields[0][0].size

        def find(block: bytes, hashed: int) -> Row | None:
            length = len(block)
            # Called for each key of each request: `count` says what is wrong, once something is.
            written, count, low = unpack_header(block) if length >= whole else (0, 0, 0)
            if (written, low) != sound or length != whole + count * width:
                count = self.count(block, token)
            needle, end = hashed.to_bytes(HASH_BYTES, "little"), whole + count * HASH_BYTES
            # In a few dozen hashes a search for the bytes is faster than a bisection in Python.
            at = block.find(needle, whole, end)
            while at >= 0 and (at - whole) % HASH_BYTES:  # found astride of two hashes
                at = block.find(needle, at + 1, end)
            if at < 0:
                return None
            row = (at - whole) // HASH_BYTES
            if alone is not None:
                return alone(block, end + row * size)
            return tuple([each.unpack_from(block, whole + count * past + row * each.size)[0] for each, past in fields])

        return find

    @cached_property
    def _fields(self) -> tuple[tuple[struct.Struct, int], ...]:
        """Each column's codec, and the bytes a key that stand before the column."""
        fields = []
        before = HASH_BYTES
        for _, kind in self.columns:
            fields.append((STRUCTS[kind], before))
            before += STRUCTS[kind].size
        return tuple(fields)
