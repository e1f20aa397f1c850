"""Where two tables of the same spine differ, to the bit: by column, with an example."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jobs.features import SPINE

LONG = 6  # columns, beyond which a message gives but their number


@dataclass(frozen=True)
class Difference:
    """A column that differs, and one of the rows in which it does."""

    column: str
    key: str
    as_of: datetime
    was: Any
    now: Any

    @property
    def example(self) -> str:
        """The row, in words."""
        return f"{self.place}: {self.column} is {self.was} without them, {self.now} with them"

    @property
    def place(self) -> str:
        """Which row it is, in words."""
        return f"key {self.key} as of {self.as_of:%Y-%m-%d}"


def differences(before: pa.Table, after: pa.Table) -> list[Difference]:
    """Return the columns in which two tables differ that are ordered by (key, as_of).

    Where they do not have the same rows that is `key` alone, and its values are how many rows of the example there are.
    """
    one, other = rows_of(before), rows_of(after)
    if one != other:
        key, as_of = min((place for place in one.keys() | other.keys() if one[place] != other[place]), key=str)
        return [Difference("key", key, as_of, one[key, as_of], other[key, as_of])]
    found = []
    for name in before.column_names:
        places = np.flatnonzero(_bits(before[name]) != _bits(after[name]))
        if name not in SPINE and len(places):
            place = int(places[0])
            key, as_of = before["key"][place].as_py(), before["as_of"][place].as_py()
            found.append(Difference(name, key, as_of, before[name][place].as_py(), after[name][place].as_py()))
    return found


def rows_of(table: pa.Table) -> Counter[tuple[Any, Any]]:
    """Return how often each (key, as_of) is there."""
    return Counter(zip(table["key"].to_pylist(), table["as_of"].to_pylist(), strict=True))


def named(columns: Iterable[str]) -> str:
    """Return columns in words."""
    names = list(columns)
    more = f" and {len(names) - LONG} more" if len(names) > LONG else ""
    return ("column " if len(names) == 1 else "columns ") + ", ".join(names[:LONG]) + more


def _bits(column: pa.ChunkedArray) -> NDArray[Any]:
    """Return what is equal where values have the same bits, or are both NULL."""
    if pa.types.is_floating(column.type):
        values = column.combine_chunks()
        wide = np.asarray(values.fill_null(0).cast(pa.float64()).to_numpy(zero_copy_only=False)).view(np.uint64)
        # No double has these bits but by chance: a NaN of its own stands for NULL.
        return np.where(values.is_null().to_numpy(zero_copy_only=False), np.uint64(0x7FF8_5C0E_0000_0001), wide)
    return np.array([repr(value) for value in column.to_pylist()], dtype=object)
