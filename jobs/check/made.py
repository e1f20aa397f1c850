"""Rows for a pipeline that has none yet: of the declared types, within what its suites allow, the same each time."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import pyarrow as pa
from pyspark.sql import SparkSession

from expectations.suites import Suite
from jobs.check.sample import DAY, Sample, as_ofs_between, empty_like
from jobs.spec import Pipeline, Source
from jobs.tables import dimension_table, events_table

KEYS, EVENTS_OF_KEY = 60, 20
DAYS = 120  # beyond the first as_of of training
WORDS = ("a", "b", "c")
BETWEEN, AMONG = "expect_column_values_to_be_between", "expect_column_values_to_be_in_set"


def made_sample(spark: SparkSession, pipeline: Pipeline, suites: Mapping[str, Suite]) -> Sample:
    """Return rows of sources that have none yet; `suites` are those of the sources that can be read, by their names."""
    name, source = pipeline.events
    last = max(source.first_day, pipeline.training.first_as_of) + DAYS * DAY
    events = empty_like(spark, events_table(name, source))
    dimensions = {each: empty_like(spark, dimension_table(each, one)) for each, one in pipeline.dimensions.items()}
    rows = _Maker(source, pipeline.entity_key, suites.get(source.suite), Random(name)).events(last - source.first_day)  # noqa: S311  reason: rows to try SQL on, no secret
    return Sample(
        pa.Table.from_pylist(list(rows), events.schema),
        {
            each: pa.Table.from_pylist(
                list(_Maker(one, pipeline.entity_key, suites.get(one.suite), Random(each)).attributes()),  # noqa: S311  reason: as above
                dimensions[each].schema,
            )
            for each, one in pipeline.dimensions.items()
        },
        as_ofs_between(pipeline, source.first_day, last),
        f"{KEYS} keys with rows made by this check, for {pipeline.tables[0]} has none yet",
    )


@dataclass(frozen=True)
class _Maker:
    """Makes rows of a source, within what its suite asks of each column by itself."""

    source: Source
    key: str
    suite: Suite | None
    chance: Random

    def events(self, period: timedelta) -> Iterator[dict[str, Any]]:
        """Give events of each key, spread over a period from the first day on."""
        for number in range(KEYS * EVENTS_OF_KEY):
            when = self._first + self.chance.randrange(period.days) * DAY + timedelta(hours=self.chance.randrange(24))
            if self.source.event_time and self.source.columns[self.source.event_time] == "date":
                when = datetime.combine(when.date(), time(), UTC)
            row = self._row(number % KEYS, when)
            arrived = (
                row[self.source.arrived_at] if self.source.arrived_at else datetime.combine(when, time(), UTC) + DAY
            )
            own = str(row[self.source.event_id]) if self.source.event_id else f"made-{number}"
            yield {**row, "event_id": own, "event_time": when, "arrived_at": arrived}

    def attributes(self) -> Iterator[dict[str, Any]]:
        """Give two rows of each key: of the first day, and of two months later."""
        for number in range(KEYS):
            for since in (self._first + DAY, self._first + 60 * DAY):
                yield {**self._row(number, since), "valid_from": since}

    @property
    def _first(self) -> datetime:
        return datetime.combine(self.source.first_day, time(), UTC)

    def _row(self, number: int, when: datetime) -> dict[str, Any]:
        values = {name: self._value(name, kind, when) for name, kind in self.source.columns.items()}
        if self.source.event_id:
            values[self.source.event_id] = self._unique(self.source.columns[self.source.event_id])
        return {**values, self.key: f"{number + 1:05d}"}

    def _unique(self, kind: str) -> Any:
        number = self.chance.randrange(2**30)
        return str(number) if kind == "string" else number

    def _value(self, name: str, kind: str, when: datetime) -> Any:
        if kind in ("date", "timestamp"):
            return when.date() if kind == "date" else when
        if choices := self._asked(AMONG, name).get("value_set"):
            return self.chance.choice(choices)
        if kind == "string":
            return self.chance.choice(WORDS)
        return self.chance.choice((False, True)) if kind == "boolean" else self._number(name, kind)

    def _number(self, name: str, kind: str) -> Any:
        asked = self._asked(BETWEEN, name)
        low = int(asked.get("min_value") or 0)
        number = self.chance.randint(low, max(low, min(int(asked.get("max_value") or low + 9), low + 100)))
        if kind.startswith("decimal"):
            return Decimal(number)
        return float(number) if kind in ("float", "double") else number

    def _asked(self, type_: str, name: str) -> dict[str, Any]:
        """Return what the suite asks of a column by its first expectation of a type."""
        checks = self.suite.checks if self.suite else ()
        return next((check.kwargs for check in checks if check.type == type_ and name in check.columns), {})
