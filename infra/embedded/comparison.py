"""The same scores twice: by key over HTTP, and from the Delta table by DuckDB."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import duckdb
import httpx
import numpy as np
from deltalake import DeltaTable
from rich.table import Table

from infra.embedded.errors import DemoFault

# Ten customers from the whole range of scores, the same ones every time.
TEN = """
    WITH ranked AS (
        SELECT key, score, as_of, model_version, run_id, ntile(10) OVER (ORDER BY score DESC, key) AS tenth
        FROM scores WHERE as_of_date = ? AND arm = 'champion'
    )
    SELECT key, score, as_of, model_version FROM ranked
    QUALIFY row_number() OVER (PARTITION BY tenth ORDER BY score DESC, key) = 1 ORDER BY score DESC, key
"""


@dataclass(frozen=True)
class Lake:
    """The Delta tables below a folder, read by DuckDB through Arrow."""

    root: str

    def query(self, tables: dict[str, str], sql: str, parameters: list[object]) -> list[tuple[Any, ...]]:
        """Run SQL over tables, given as {name in the query: table below the root}."""
        with duckdb.connect() as connection:
            for name, table in tables.items():
                connection.register(name, DeltaTable(f"{self.root}/{table}").to_pyarrow_dataset())
            return connection.execute(sql, parameters).fetchall()

    def count(self, table: str, where: str = "true") -> int:
        """Return how many rows a table has; none where there is no such table."""
        if not DeltaTable.is_deltatable(f"{self.root}/{table}"):
            return 0
        return int(self.query({"t": table}, f"SELECT count(*) FROM t WHERE {where}", [])[0][0])  # noqa: S608  # reason: our own words


def compare(lake: Lake, lookup: str, pipeline: str, as_of: date) -> Table:
    """Return a table of ten customers: what HTTP answers beside what Delta holds.

    Raises:
        DemoFault: an answer is missing, or is not the same 32 bits.
    """
    rows = lake.query({"scores": f"scores/{pipeline}"}, TEN, [as_of])
    table = Table(title=f"{pipeline}: over HTTP, and in Delta by DuckDB", title_justify="left")
    for heading in ("key", "HTTP score", "Delta score", "as of (UTC)", "age", "source", "model"):
        table.add_column(heading, justify="right" if "score" in heading else "left")
    for key, score, _, version in rows:
        answer = ask(lookup, pipeline, key)
        if np.float32(answer["score"]) != np.float32(score) or str(answer["model"]["version"]) != str(version):
            raise DemoFault(f"{key}: HTTP answers {answer}, Delta holds {score!r} of model version {version}")
        table.add_row(*cells(answer, score))
    return table


def ask(lookup: str, pipeline: str, key: str) -> dict[str, Any]:
    """Look one key up.

    Raises:
        DemoFault: the service has no answer for it.
    """
    answer = httpx.get(f"{lookup}/v1/scores/{pipeline}/{key}", timeout=10, trust_env=False)
    if answer.is_error:
        raise DemoFault(f"the lookup service answers {answer.status_code} for customer {key}: {answer.text[:300]}")
    body: dict[str, Any] = answer.json()
    return body


def cells(answer: dict[str, Any], score: float) -> tuple[str, ...]:
    """Return one row: both scores with all digits of a 32-bit float."""
    model = answer["model"]
    over_http, in_delta = (str(np.float32(value)) for value in (answer["score"], score))
    age = f"{answer['age_seconds'] / 3600:.1f} h"
    as_of = datetime.fromisoformat(answer["as_of"]).strftime("%Y-%m-%d %H:%M")
    return (answer["key"], over_http, in_delta, as_of, age, answer["source"], f"v{model['version']}")
