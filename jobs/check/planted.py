"""Events that the SQL must not see, or must not tell apart: copies of the sample's own, with other times or ties."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import cycle, islice
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.check.sample import DAY, Sample
from jobs.spec import Pipeline
from jobs.spec.pipeline import ROLES

COPIES, TWINS = 4, 10  # of a key
Row = dict[str, Any]
Times = list[tuple[datetime, datetime]]
HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
STRANGER = "~"  # what the key of somebody ends with who has nothing but planted events


@dataclass(frozen=True)
class Rule:
    """What no feature may see: in words, how to keep from it, and when such events happen and arrive."""

    name: str
    says: str
    remedy: str
    times: Callable[[datetime, timedelta], Times]


RULES = (
    Rule(
        "event time",
        "events that happen at as_of or later, though they arrived by then",
        "join events with event_time < as_of",
        lambda as_of, horizon: [
            (as_of, as_of),
            (as_of + HOUR, as_of),
            (as_of + DAY, as_of),
            (as_of + horizon / 2, as_of),
        ],
    ),
    Rule(
        "arrival time",
        "events that arrive after as_of, though they happened before",
        "join events with arrived_at <= as_of",
        lambda as_of, horizon: [
            (as_of - SECOND, as_of + SECOND),
            (as_of - DAY, as_of + DAY),
            (as_of - HOUR, as_of + HOUR),
            (as_of - 7 * DAY, as_of + horizon),
        ],
    ),
    Rule(
        "label",
        "events of the label's period, from as_of to as_of + horizon",
        "what the label looks at is not known at as_of: join events with event_time < as_of AND arrived_at <= as_of",
        lambda as_of, horizon: [
            (as_of + SECOND, as_of + HOUR),
            (as_of + horizon / 3, as_of + horizon / 3 + HOUR),
            (as_of + horizon / 2, as_of + horizon / 2 + DAY),
            (as_of + horizon - SECOND, as_of + horizon),
        ],
    ),
)
# What does not come from one of these by itself, and what is no event.
TOGETHER = Rule(
    "several",
    "events that nobody knew at as_of, several together",
    "join events with event_time < as_of AND arrived_at <= as_of",
    lambda _as_of, _horizon: [],
)
ATTRIBUTES = Rule(
    "later attributes",
    "rows of dimensions that are delivered after as_of",
    "join them with valid_from <= as_of AND as_of < valid_to",
    lambda _as_of, _horizon: [],
)
BEYOND = Rule(
    "horizon",
    "events after as_of + horizon",
    "the label looks from as_of to as_of + :horizon_days: join events with event_time < "
    "timestampadd(DAY, :horizon_days, as_of)",
    lambda as_of, horizon: [
        (as_of + horizon, as_of + horizon + HOUR),
        (as_of + horizon + HOUR, as_of + horizon + DAY),
        (as_of + horizon + DAY, as_of + horizon + 2 * DAY),
        (as_of + 3 * horizon / 2, as_of + 2 * horizon),
    ],
)


@dataclass(frozen=True)
class Garden:
    """The events of a sample that are visible at its newest as_of, and what can be planted among them."""

    pipeline: Pipeline
    sample: Sample

    def visible(self) -> pa.Table:
        """Return what is visible at the newest as_of."""
        events, as_of = self.sample.events, pa.scalar(self.sample.newest, pa.timestamp("us", "UTC"))
        happened = pc.less(events["event_time"], as_of)
        return events.filter(pc.and_(happened, pc.less_equal(events["arrived_at"], as_of)))

    def with_twins(self) -> pa.Table:
        """Return what is visible, with events that happen at the same instants and differ in some columns.

        Whatever an ORDER BY names but an event's own id, two of them tie in it, while others of their columns differ.
        """
        twins: list[Row] = []
        chance, seen = Random(1), self.visible()  # noqa: S311  reason: to try SQL on, no secret
        all_rows = seen.to_pylist()
        for rows in _by_key(seen, self.pipeline.entity_key).values():
            for row in rows[:TWINS]:
                other = chance.choice(all_rows)  # of any key: whose rows all say the same would have no ties to tell
                mixed = {name: chance.choice((row, other))[name] for name in row}
                times = {name: row[name] for name in self._fixed}
                twins.append({**mixed, **times, **self._named(f"twin-{len(twins)}")})
        return pa.concat_tables([seen, pa.Table.from_pylist(twins, seen.schema)])

    def planted(self, rule: Rule) -> pa.Table:
        """Return events that `rule` forbids to see from the newest as_of, and so from each earlier one.

        Copies of each key's own, one with the greatest and one with the least of each column; some are of keys that
        have no others.
        """
        seen = self.visible()
        made: list[Row] = []
        extremes = _extremes(seen)
        times = rule.times(self.sample.newest, self.pipeline.label.horizon)
        for number, (key, rows) in enumerate(_by_key(seen, self.pipeline.entity_key).items()):
            sources = [*islice(cycle(rows), COPIES - len(extremes)), *extremes]
            for row, when in zip(sources, times, strict=True):
                for owner in (key, f"{key}{STRANGER}") if number < COPIES else (key,):
                    own = self._named(f"planted-{rule.name}-{len(made)}")
                    made.append({**self._timed(row, *when), **own, self.pipeline.entity_key: owner})
        return pa.Table.from_pylist(made, seen.schema)

    def later(self, rows: pa.Table, keys: Sequence[str]) -> pa.Table:
        """Return a dimension's rows with one more of each of `keys`, after all of them, with other attributes.

        They are those of some other row; NULL where all rows say the same.
        """
        key, last = self.pipeline.entity_key, self.sample.newest
        own = [name for name in rows.column_names if name not in (key, "valid_from")]
        before: dict[str, tuple[Any, ...]] = {}
        others: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        for row in rows.filter(pc.is_valid(rows["valid_from"])).sort_by("valid_from").to_pylist():
            before[row[key]] = tuple(row[name] for name in own)
            others[before[row[key]]] = ()
            last = max(last, row["valid_from"])
        kinds = [*others] if len(others) > 1 else [*others, (None,) * len(own)]
        others = dict(zip(kinds, [*kinds[1:], kinds[0]], strict=True))
        said = [others[before[each]] if each in before else kinds[0] for each in keys]
        made = [
            {key: each, "valid_from": last + DAY, **dict(zip(own, values, strict=True))}
            for each, values in zip(keys, said, strict=True)
        ]
        return pa.concat_tables([rows, pa.Table.from_pylist(made, rows.schema)])

    def of_half(self, events: pa.Table, keys: Sequence[str]) -> pa.Table:
        """Return the events of some keys alone."""
        return events.filter(pc.is_in(events[self.pipeline.entity_key], pa.array(keys, pa.string())))

    @property
    def _fixed(self) -> set[str]:
        """The columns that say whose an event is, and when it happened and arrived."""
        source = self.pipeline.events[1]
        named = {getattr(source, role) for role in ("event_time", "arrived_at")}
        return {self.pipeline.entity_key, "event_time", "arrived_at", *(named - {None})}

    def _named(self, event_id: str) -> Row:
        """Return what identifies an event."""
        source = self.pipeline.events[1]
        if source.event_id and source.columns[source.event_id] == "string":
            return {"event_id": event_id, source.event_id: event_id}
        return {"event_id": event_id}

    def _timed(self, row: Row, happened: datetime, arrived: datetime) -> Row:
        """Return a row with other times, also in the columns that they are from."""
        source = self.pipeline.events[1]
        changed: Row = {"event_time": happened, "arrived_at": arrived}
        for role, when in zip(ROLES, (happened, arrived), strict=False):
            column = getattr(source, role)
            if column is not None:
                changed[column] = when.date() if source.columns[column] == "date" else when
        return {**row, **changed, "event_time": happened, "arrived_at": arrived}


def _by_key(events: pa.Table, key: str) -> dict[str, list[Row]]:
    found = defaultdict(list)
    for row in events.to_pylist():
        found[row[key]].append(row)
    return dict(sorted(found.items()))


def _extremes(events: pa.Table) -> list[Row]:
    """Return a row of the greatest and a row of the least values of each column."""
    columns = {name: [value for value in events[name].to_pylist() if value is not None] for name in events.column_names}
    return [{name: choose(values, default=None) for name, values in columns.items()} for choose in (max, min)]
