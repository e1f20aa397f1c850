"""Where a key lives in a generation, and how one value is read from a block; `blocks` writes what this reads."""

import struct
from bisect import bisect_left
from functools import cached_property
from typing import Annotated, Literal

import xxhash
from pydantic import Field
from pydantic.dataclasses import dataclass

from serving.errors import BlockCorrupt

ColumnType = Literal["float32", "float64", "int32", "uint16", "bool"]
Value = float | int | bool

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
        """The place of each column, by its name, in what `find` returns."""
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

    def hash_sql(self, key: str) -> str:
        """Return the Spark SQL of `hash_of` for the string expression `key`: a BIGINT of the same 64 bits."""
        return f"xxhash64({self.salt}L, {key})"

    def bucket_sql(self, hashed: str) -> str:
        """Return the Spark SQL of `bucket_of` for the BIGINT expression `hashed`: an INT."""
        return f"CAST(shiftrightunsigned(shiftrightunsigned({hashed}, 32) * {self.buckets}L, 32) AS INT)"

    def count(self, block: bytes, token: int) -> int:
        """Return how many keys a block holds, or raise `BlockCorrupt` where it is not one of generation `token`."""
        if len(block) < HEADER.size:
            raise BlockCorrupt(f"a block of generation {token} has {len(block)} bytes: publish it again")
        written, count, low = HEADER.unpack_from(block)
        expected = HEADER.size + count * self.width
        if (written, low, len(block)) != (self.format, token & 0xFFFFFFFF, expected):
            raise BlockCorrupt(
                f"a block of generation {token} has format {written}, token {low} and {len(block)} bytes, "
                f"{expected} by its count: publish the generation again"
            )
        return int(count)

    def find(self, block: bytes, token: int, hashed: int) -> tuple[Value, ...] | None:
        """Return the values of one hash, in the order of the columns, or None where the block does not have it.

        Raises `BlockCorrupt` where the block is not one of generation `token`.
        """
        count = self.count(block, token)
        # A cast reads the hashes in place; it takes the byte order of the machine, little-endian wherever we run.
        hashes = memoryview(block)[HEADER.size : HEADER.size + count * HASH_BYTES].cast("Q")
        row = bisect_left(hashes, hashed)
        if row == count or hashes[row] != hashed:
            return None
        return tuple(
            field.unpack_from(block, HEADER.size + count * before + row * field.size)[0]
            for field, before in self._fields
        )

    @cached_property
    def _fields(self) -> tuple[tuple[struct.Struct, int], ...]:
        """Each column's codec, and the bytes a key that stand before the column."""
        fields = []
        before = HASH_BYTES
        for _, kind in self.columns:
            fields.append((STRUCTS[kind], before))
            before += STRUCTS[kind].size
        return tuple(fields)
