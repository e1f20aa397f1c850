"""A pipeline's SQL files: read, parsed, and refused where a query could give another answer the second time."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError

from jobs.errors import SqlRefused

# Each of these depends on the order of rows, on the clock or on chance, so that a replay could differ.
_ORDER = "it depends on the order of rows: use min, max, min_by or max_by over a unique column, or array_sort"
_CLOCK = "it depends on the clock: use as_of"
_CHANCE = "it depends on chance: use a hash of the key"
_APPROXIMATE = "its result depends on how rows are split: use an exact aggregate"
REFUSED = {
    **dict.fromkeys(("first", "last", "any_value", "first_value", "last_value", "arg_any"), _ORDER),
    **dict.fromkeys(("monotonically_increasing_id", "spark_partition_id", "input_file_name", "shuffle"), _ORDER),
    **dict.fromkeys(("now", "curdate", "current_date", "current_timestamp", "current_time", "localtimestamp"), _CLOCK),
    **dict.fromkeys(("unix_timestamp", "current_timezone", "current_user", "current_catalog"), _CLOCK),
    **dict.fromkeys(("rand", "randn", "random", "randstr", "uniform", "uuid"), _CHANCE),
    **dict.fromkeys(("approx_count_distinct", "approx_distinct", "approx_percentile", "approx_quantile"), _APPROXIMATE),
    **dict.fromkeys(("percentile_approx", "approx_top_k", "hll_sketch_agg"), _APPROXIMATE),
}
COLLECTED = ("collect_list", "collect_set", "array_agg", "array_unique_agg")
SORTS = ("array_sort", "sort_array", "sort_array_desc")


@dataclass(frozen=True)
class SqlFile:
    """One SELECT and where it comes from."""

    path: Path
    text: str

    @property
    def digest(self) -> str:
        """SHA-256 of the text, in hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def read_sql(path: Path) -> SqlFile:
    """Return the one SELECT of the file `path`.

    Raises:
        SqlRefused: the file is missing, is not one SELECT, or calls what could give another answer the second time.
    """
    if not path.is_file():
        raise SqlRefused(f"{path} does not exist: write it (see 'Adding a pipeline' in the README)")
    text = path.read_text("utf-8")
    try:
        statements = [found for found in sqlglot.parse(text, dialect="spark") if found is not None]
    except ParseError as error:
        where = error.errors[0]
        raise SqlRefused(f"{path}:{where.get('line')}: this is not Spark SQL: {where.get('description')}") from None
    if len(statements) != 1 or not isinstance(statements[0], exp.Query):
        raise SqlRefused(f"{path}: has {len(statements)} statements: write one SELECT")
    for call in statements[0].find_all(exp.Func):
        _refuse(path, call)
    return SqlFile(path, text)


def _refuse(path: Path, call: exp.Func) -> None:
    written = call.sql(dialect="spark").split("(")[0].lower()
    names = {written, *(name.lower() for name in call.sql_names())}
    for name in sorted(names & REFUSED.keys()):
        raise SqlRefused(f"{path}: {written}() is refused: {REFUSED[name]}")
    if names & set(COLLECTED) and not _sorted(call):
        raise SqlRefused(f"{path}: {written}() is refused: {_ORDER}; sort_array(...) around it will do")


def _sorted(call: exp.Func) -> bool:
    parent = call.parent
    while isinstance(parent, exp.Filter | exp.Paren):
        parent = parent.parent
    if not isinstance(parent, exp.Func):
        return False
    names = {name.lower() for name in parent.sql_names()} | {parent.name.lower()}
    return bool(names & set(SORTS))
