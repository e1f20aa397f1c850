"""What a pipeline's SQL may not say, because a replay could give another answer: by name, window, clause and table."""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlglot import exp
from sqlglot.errors import ErrorLevel

# Each of these depends on the order of rows, on the clock, on chance or on who asks, so that a replay could differ.
_ORDER = "it depends on the order of rows: use min, max, min_by or max_by over a unique column, or array_sort"
_CLOCK = "it depends on the clock: use as_of"
_CHANCE = "it depends on chance: use a hash of the key"
_APPROXIMATE = "its result depends on how rows are split: use an exact aggregate"
_ASKER = "it depends on who asks and where: use a constant"
_FOREIGN = "it runs what nobody here has read: use Spark's own functions"
_DOUBLES = "it adds doubles, whose sum depends on the order of rows: use sums of DECIMAL or BIGINT, and cast them last"
_WINDOW = "its window has no order: use ORDER BY over a unique column"
REFUSED = {
    **dict.fromkeys(("first", "last", "any_value", "first_value", "last_value", "nth_value", "arg_any"), _ORDER),
    **dict.fromkeys(("monotonically_increasing_id", "spark_partition_id", "shuffle", "mode"), _ORDER),
    **dict.fromkeys(("input_file_name", "input_file_block_start", "input_file_block_length"), _ORDER),
    **dict.fromkeys(("now", "curdate", "getdate", "current_date", "current_timestamp", "current_time"), _CLOCK),
    **dict.fromkeys(("localtime", "localtimestamp"), _CLOCK),
    **dict.fromkeys(("user", "session_user", "current_user", "current_timezone", "version"), _ASKER),
    **dict.fromkeys(("current_catalog", "current_database", "current_schema"), _ASKER),
    **dict.fromkeys(("rand", "randn", "random", "randstr", "uniform", "uuid"), _CHANCE),
    **dict.fromkeys(("approx_count_distinct", "approx_distinct", "approx_percentile", "approx_quantile"), _APPROXIMATE),
    **dict.fromkeys(("percentile_approx", "histogram_numeric"), _APPROXIMATE),
    **dict.fromkeys(("reflect", "java_method", "try_reflect"), _FOREIGN),
    **dict.fromkeys(("std", "stddev", "stddev_samp", "stddev_pop", "variance", "var_samp", "var_pop"), _DOUBLES),
    **dict.fromkeys(("skewness", "kurtosis", "corr", "covar_samp", "covar_pop", "regr_slope"), _DOUBLES),
    **dict.fromkeys(("regr_intercept", "regr_r2", "regr_sxx", "regr_sxy", "regr_syy"), _DOUBLES),
}
# Families of approximate aggregates that grow with each version of Spark.
_SKETCHES = ("approx_top_k", "hll_", "kll_", "theta_", "tuple_", "count_min_sketch")
COLLECTED = ("collect_list", "collect_set", "array_agg", "array_unique_agg")
SORTS = ("array_sort", "sort_array", "sort_array_desc")
_LISTED = ("listagg", "string_agg", "group_concat")
# What Spark calls without parentheses, unless it is a column.
_BARE = frozenset(
    {"localtimestamp", "localtime", "current_time", "current_date", "current_timestamp", "user", "session_user",
     "current_user", "current_catalog", "current_database", "current_schema"}
)  # fmt: skip
_RANKS = ("row_number", "rank", "dense_rank", "percent_rank", "cume_dist", "ntile", "lag", "lead")
_ROW_SOURCES = ("range", "explode", "explode_outer", "posexplode", "posexplode_outer", "inline", "stack")
_CLAUSES = {
    exp.Limit: "LIMIT takes any rows: use a condition on the columns",
    exp.Fetch: "FETCH takes any rows: use a condition on the columns",
    exp.Offset: "OFFSET leaves out any rows: use a condition on the columns",
    exp.TableSample: "TABLESAMPLE depends on chance: use a condition on a hash of the key",
    exp.Version: "AS OF reads another version than the run recorded: read the view as it is",
    exp.QueryTransform: f"TRANSFORM is refused: {_FOREIGN}",
}


@dataclass(frozen=True)
class Reads:
    """What a file may read: the names of its views, and the columns that are DOUBLE or FLOAT in them."""

    views: frozenset[str]
    inexact: frozenset[str] = frozenset()


def refusals(query: exp.Query, reads: Reads | None) -> Iterator[str]:
    """Give what is refused in a query, each with what to use instead.

    A sum of doubles is found where a cast, a literal or a declared column shows it; ties of an ORDER BY never are.
    """
    for clause, reason in _CLAUSES.items():
        if query.find(clause):
            yield reason
    for table in query.find_all(exp.Table):
        yield from _table(query, table, reads)
    for call in query.find_all(exp.Func):
        yield from _within(call, _call(call))
        yield from _within(call, _inexact_sum(query, call, reads))
    for column in query.find_all(exp.Column):
        yield from _within(column, _bare(column))
    for window in query.find_all(exp.Window):
        yield from _within(window, _window(query, window))


def _within(part: exp.Expr, refused: Iterator[str]) -> Iterator[str]:
    """Name the column that a part of a query makes, where it makes one."""
    made = part.find_ancestor(exp.Alias, exp.Select)
    named = f"column {made.alias}: " if isinstance(made, exp.Alias) else ""
    return (named + reason for reason in refused)


def _names(call: exp.Func) -> tuple[str, set[str]]:
    """Return how a call is written, and all names of its function."""
    written = call.sql(dialect="spark", unsupported_level=ErrorLevel.IGNORE).split("(")[0].lower()
    return written, {written, *(name.lower() for name in call.sql_names())}


def _call(call: exp.Func) -> Iterator[str]:
    written, names = _names(call)
    ordered = call.find_ancestor(exp.WithinGroup, exp.Select)
    if isinstance(ordered, exp.WithinGroup) and ordered.this is call:
        return
    for name in sorted(names & REFUSED.keys()):
        yield f"{written}() is refused: {REFUSED[name]}"
    if written.startswith(_SKETCHES):
        yield f"{written}() is refused: {_APPROXIMATE}"
    if isinstance(call, exp.StrToUnix) and isinstance(call.this, exp.CurrentTimestamp | None):
        yield f"{written}() is refused without an argument: {_CLOCK}"
    if names & set(COLLECTED) and not _sorted(call):
        yield f"{written}() is refused: {_ORDER}; sort_array(...) around it will do"
    if names & set(_LISTED) and not call.find(exp.Order):
        yield f"{written}() is refused: {_ORDER}; WITHIN GROUP (ORDER BY ...) will do"


def _sorted(call: exp.Func) -> bool:
    parent = call.parent
    while isinstance(parent, exp.Filter | exp.Paren):
        parent = parent.parent
    if not isinstance(parent, exp.Func):
        return False
    names = {name.lower() for name in parent.sql_names()} | {parent.name.lower()}
    return bool(names & set(SORTS))


def _inexact_sum(query: exp.Query, call: exp.Func, reads: Reads | None) -> Iterator[str]:
    written, names = _names(call)
    if not names & {"sum", "avg", "mean", "try_sum", "try_avg"}:
        return
    made = {alias.alias.lower() for alias in query.find_all(exp.Alias)}
    doubles = (reads.inexact if reads else frozenset()) - made
    added = call.this if isinstance(call.this, exp.Expr) else next(iter(call.expressions), None)
    if added is not None and _is_double(added, doubles):
        yield f"{written}() is refused: {_DOUBLES}"


def _is_double(value: exp.Expr, doubles: frozenset[str]) -> bool:
    """Return whether a value is seen to be a DOUBLE or FLOAT: by a cast, a literal as 1e0, or a column of `doubles`."""
    if isinstance(value, exp.Cast):
        return value.to.this in (exp.DataType.Type.DOUBLE, exp.DataType.Type.FLOAT)
    if isinstance(value, exp.Column):
        return value.name.lower() in doubles
    if isinstance(value, exp.Literal):
        return not value.is_string and "e" in value.name.lower()
    inner = (exp.Binary, exp.Unary, exp.Distinct, exp.Coalesce, exp.If, exp.Case)
    return isinstance(value, inner) and any(_is_double(part, doubles) for part in _values(value))


def _values(value: exp.Expr) -> Iterator[exp.Expr]:
    """Give the parts of an expression that make its value; conditions do not."""
    if isinstance(value, exp.If):
        parts = [value.args.get("true"), value.args.get("false")]
    elif isinstance(value, exp.Case):
        parts = [*value.args["ifs"], value.args.get("default")]
    else:
        parts = list(value.iter_expressions())
    return (part for part in parts if part is not None)


def _bare(column: exp.Column) -> Iterator[str]:
    name = column.name.lower()
    if not column.table and not column.this.args.get("quoted") and name in _BARE:
        yield f"{name} is refused: {REFUSED[name]}; if it is a column, write its table before it"


def _window(query: exp.Query, window: exp.Window) -> Iterator[str]:
    call = window.this.this if isinstance(window.this, exp.IgnoreNulls | exp.RespectNulls) else window.this
    if not isinstance(call, exp.Func) or _ordered(query, window):
        return
    written, names = _names(call)
    if names & set(_RANKS) or window.args.get("spec"):
        yield f"{written}() is refused: {_WINDOW}"


def _ordered(query: exp.Query, window: exp.Window) -> bool:
    named = window.alias.lower()
    others = (other for select in query.find_all(exp.Select) for other in select.args.get("windows") or ())
    known = [other for other in others if named and other.name.lower() == named]
    return any(one.args.get("order") for one in (window, *known))


def _table(query: exp.Query, table: exp.Table, reads: Reads | None) -> Iterator[str]:
    written = table.sql(dialect="spark")
    if isinstance(table.this, exp.Func):
        if _names(table.this)[0] not in _ROW_SOURCES:
            yield f"{written} is refused: it reads what no run records; read the views"
    elif table.db or table.catalog:
        yield f"{written} is refused: a run records the versions of its views alone; read the views"
    elif reads is not None:
        common = {cte.alias.lower() for cte in query.find_all(exp.CTE)}
        if table.name.lower() not in common | reads.views:
            yield f"there is no view {table.name}: read {', '.join(sorted(reads.views))}"
