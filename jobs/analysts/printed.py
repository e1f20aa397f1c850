"""Rows for people on a terminal, and as CSV for whatever reads them elsewhere."""

import csv
import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, TextIO

import duckdb
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

AT_ONCE = 10_000
ON_SCREEN = 1_000
NUMBERS = ("INT", "FLOAT", "DOUBLE", "DECIMAL")


def print_rows(result: duckdb.DuckDBPyConnection, out: TextIO) -> None:
    """Print what a statement gave: a table on a terminal, up to `ON_SCREEN` rows of it; elsewhere all, as CSV."""
    names = [str(column[0]) for column in result.description]
    kinds = [str(column[1]) for column in result.description]
    if out.isatty():
        console = Console(file=out)
        shown = result.fetchmany(ON_SCREEN)
        console.print(_table(names, kinds, shown))
        if result.fetchone():
            console.print(f"the first {len(shown)} rows; send the output to a file to have all of them")
        return
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    for rows in iter(lambda: result.fetchmany(AT_ONCE), []):
        writer.writerows(cells(rows, kinds))


def cells(rows: Sequence[Sequence[Any]], kinds: Sequence[str]) -> Iterator[list[str]]:
    """Yield the texts of each row, whose columns have DuckDB's types `kinds`."""
    for row in rows:
        yield [_cell(value, kind) for value, kind in zip(row, kinds, strict=True)]


def _table(names: Sequence[str], kinds: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for name, kind in zip(names, kinds, strict=True):
        table.add_column(Text(name), justify="right" if any(number in kind for number in NUMBERS) else "left")
    for row in cells(rows, kinds):
        table.add_row(*(Text(cell) for cell in row))
    return table


def _cell(value: object, kind: str) -> str:
    if value is None:
        return ""
    if kind == "FLOAT":
        return str(np.float32(str(value)))  # the shortest text of these 32 bits
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, list | dict):
        return json.dumps(value, default=str)
    return str(value)
