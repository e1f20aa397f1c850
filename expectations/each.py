"""The rows of several dates judged in one pass over them, and those of each date by themselves.

Great Expectations takes some Spark jobs for a suite, whatever it judges, and seconds for these. Here it decides about
each date as ever; but what it counts is counted of all dates at once, the first time that it asks.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any

from great_expectations.core.id_dict import IDDict
from great_expectations.util import convert_to_json_serializable
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from expectations.engine import ROWS, BriefEngine
from expectations.rows import ABOUT_SEVERAL_ROWS
from expectations.suites import Check

ALL = "the rows of all dates"
COUNT, FILTERED = ".unexpected_count", ".filtered_row_count"
PARTIAL = (".condition", ".aggregate_fn")
OF_COLUMNS = ("table.columns", "table.column_types")


@dataclass(frozen=True)
class Groups:
    """The timestamp column whose date rows are grouped by, and for each of the dates what the rows are."""

    column: str
    contexts: Mapping[date, Mapping[str, str]]

    @property
    def by(self) -> Column:
        """The date of a row."""
        return F.to_date(self.column)

    def of(self, frame: DataFrame, as_of: date) -> DataFrame:
        """Return the rows of a date."""
        return frame.where(self.by == F.lit(as_of))


def validate_each(frame: DataFrame, checks: tuple[Check, ...], groups: Groups) -> Iterator[tuple[date, list[Any]]]:
    """Give for each date the results of Great Expectations, as `BriefEngine` would of its rows alone."""
    engine = _Engine(frame, checks, groups)
    for as_of in groups.contexts:
        engine.turn_to(as_of)
        yield as_of, engine.judge()


class _Engine(BriefEngine):
    """Counts of all dates at once, and answers for one of them.

    What is asked for is known by its expression, which Java compares: an expression that has a number of one date in
    it, such as a mean, is another one for the next. Expressions themselves are made once for all dates where they are
    made of the same: to make them takes longer than to count.
    """

    def __init__(self, frame: DataFrame, checks: tuple[Check, ...], groups: Groups) -> None:
        super().__init__(frame, checks)
        self.frame, self.groups = frame, groups
        self.known: dict[tuple[object, object], dict[date, object]] = {}
        self.made: dict[object, tuple[Mapping[str, object], object]] = {}
        self.as_of = next(iter(groups.contexts))
        self.load_batch_data(ALL, frame)

    def turn_to(self, as_of: date) -> None:
        """Answer for the rows of this date from now on."""
        self.as_of = as_of
        self.load_batch_data(ROWS, self.groups.of(self.frame, as_of))

    def resolve_metric_bundle(self, metric_fn_bundle: Iterable[Any]) -> dict[Any, Any]:
        """Return the values of aggregates, by their ids."""
        bundle = list(metric_fn_bundle)
        self._count([(one.metric_fn, one.compute_domain_kwargs or {}) for one in bundle])
        found, absent = {}, []
        for one in bundle:
            values = self.known[_key(one.metric_fn, one.compute_domain_kwargs or {})]
            if self.as_of in values:
                found[one.metric_configuration.id] = convert_to_json_serializable(data=values[self.as_of])
            else:
                absent.append(one)
        # Of no rows there is no group, and yet a count.
        return found | (super().resolve_metric_bundle(absent) if absent else {})

    def instead(self, metric: Any, own: Callable[..., Any]) -> Callable[..., Any]:
        """Return how a metric is computed; what would take a Spark job for each date is counted as the rest."""
        name = metric.metric_name
        if name.endswith(COUNT):
            return partial(self._unexpected, name.removesuffix(COUNT), own)
        if name.endswith(FILTERED):
            return self._filtered
        if name.endswith(PARTIAL) or name in OF_COLUMNS:
            return partial(self._made_once, metric.id, own)
        return super().instead(metric, own)

    def _made_once(self, metric: object, own: Callable[..., Any], **kwargs: Any) -> Any:
        """Return what a metric was for the date before, if it is made of the same now."""
        made_of, found = self.made.get(metric, (None, None))
        if made_of is None or not _are_same(made_of, kwargs["metrics"]):
            found = own(**kwargs)
            self.made[metric] = (dict(kwargs["metrics"]), found)
        return found

    def _filtered(self, **kwargs: Any) -> Any:
        """Return how many rows of the date an expectation of several columns looks at."""
        rows, domain = F.count(F.lit(1)), kwargs["metric_domain_kwargs"]
        self._count([(rows, domain)])
        return self.known[_key(rows, domain)].get(self.as_of, 0)

    def _unexpected(self, metric: str, own: Callable[..., Any], **kwargs: Any) -> Any:
        """Return how many rows of the date break a condition."""
        condition, compute, accessor = kwargs["metrics"]["unexpected_condition"]
        domain = {**compute, **accessor}
        if not self._is_within_dates(metric, domain):
            return own(**kwargs)
        marked = F.sum(F.when(F.col("__unexpected"), 1).otherwise(0))
        self._count([(marked, domain)], condition)
        return self.known[_key(marked, domain, condition)].get(self.as_of, 0)

    def _is_within_dates(self, metric: str, domain: Mapping[str, Any]) -> bool:
        """Return whether rows of other dates have no say: it is about a row alone, or about rows of one instant."""
        if metric not in ABOUT_SEVERAL_ROWS:
            return True
        return metric.endswith(".unique") and self.groups.column in (
            *domain.get("column_list", ()),
            domain.get("column"),
        )

    def _count(self, wanted: list[tuple[Column, dict[str, Any]]], condition: Column | None = None) -> None:
        """Compute aggregates that are not known yet, of all dates, in a Spark job for each domain."""
        unknown: dict[object, list[tuple[Column, dict[str, Any]]]] = {}
        for column, domain in wanted:
            if _key(column, domain, condition) not in self.known:
                unknown.setdefault(_domain(domain), []).append((column, domain))
        for columns in unknown.values():
            rows = self.get_domain_records(domain_kwargs={**columns[0][1], "batch_id": ALL})
            if condition is not None:  # as a column: it may look at several rows, which an aggregate cannot
                rows = rows.withColumn("__unexpected", condition)
            found = rows.groupBy(self.groups.by).agg(*(column for column, _ in columns)).collect()
            for place, (column, domain) in enumerate(columns):
                self.known[_key(column, domain, condition)] = {row[0]: row[place + 1] for row in found}


def _are_same(made_of: Mapping[str, object], now: Mapping[str, object]) -> bool:
    """Tell whether values are equal; expressions only where they are the very same, for `==` makes another one."""
    return made_of.keys() == now.keys() and all(
        one is now[name] or (not isinstance(one, tuple) and bool(one == now[name])) for name, one in made_of.items()
    )


def _domain(domain: Mapping[str, Any]) -> object:
    return IDDict({**domain, "batch_id": ALL}).to_id()


def _key(column: Column, domain: Mapping[str, Any], condition: Column | None = None) -> tuple[object, object]:
    told = [_domain(domain), column._jc, None if condition is None else condition._jc]  # noqa: SLF001  reason: only Java tells equal ones
    return tuple(told[:1]), tuple(told[1:])
