"""The trial of a pipeline's SQL on a sample: same bits in any order and spine, nothing from later, a row for each."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.check.bits import Difference, differences, named, rows_of
from jobs.check.findings import Finding, faulty, fine, noted
from jobs.check.planted import ATTRIBUTES, BEYOND, RULES, STRANGER, TOGETHER, Garden, Rule
from jobs.check.sample import Sample
from jobs.check.worlds import Probe, World
from jobs.features import SPINE
from jobs.sqlfile import SqlFile

BASE, SHUFFLED, PLANTED, HALF, LATER, APART = "base", "shuffled", "planted", "half", "later attributes", "apart"
PARTS = 3
POPULATION, FEATURES, LABELS = "population.sql", "features.sql", "labels.sql"
ORDER = "the same rows in another order give other values: two rows tie in an ORDER BY, of a window, max_by or min_by; "


@dataclass(frozen=True)
class Trial:
    """The trial of one pipeline's SQL on one sample."""

    probe: Probe
    garden: Garden
    sql: Mapping[str, SqlFile]

    @property
    def sample(self) -> Sample:
        """What it is tried on."""
        return self.garden.sample

    @cached_property
    def base(self) -> World:
        """What is visible, with ties."""
        return World(self.garden.with_twins(), self.sample.dimensions)

    @cached_property
    def worlds(self) -> dict[str, World]:
        """The base, the same in another order, and the base with all that the rules forbid to see."""
        planted = self._with(*(self.garden.planted(rule) for rule in RULES))
        return {BASE: self.base, SHUFFLED: self._shuffled(), PLANTED: planted}

    @cached_property
    def by_rule(self) -> dict[str, World]:
        """The base with what each rule by itself forbids: to tell which one is broken, where one is."""
        return {rule.name: self._with(self.garden.planted(rule)) for rule in RULES}

    @cached_property
    def populations(self) -> dict[str, pa.Table]:
        """The population of each world, at all dates."""
        return self.probe.populations(self.sql["population"], self.worlds, self.sample.as_ofs)

    @cached_property
    def spine(self) -> pa.Table:
        """The population of the base, each row once."""
        found = self.populations[BASE].select(list(SPINE))
        return found.filter(pc.is_valid(found["key"])).group_by(list(SPINE)).aggregate([])

    @cached_property
    def newest(self) -> pa.Table:
        """The rows of the spine at the newest date."""
        return _at(self.spine, self.sample.newest)

    @cached_property
    def parting(self) -> datetime | None:
        """The newest date that has both rows of half of the keys and others; None where there is none."""
        half, sides = set(self._half), defaultdict[datetime, set[bool]](set)
        for key, as_of in rows_of(self.spine):
            sides[as_of].add(key in half)
        return max((as_of for as_of, both in sides.items() if len(both) > 1), default=None)

    def of_population(self) -> Iterator[Finding]:
        """Judge population.sql."""
        is_fine = True
        for fault in self._faults_of_population():
            is_fine = False
            yield fault
        if is_fine:
            many = len(self.populations[BASE])
            yield fine(POPULATION, f"keys are unique, and see nothing later than as_of ({many} at {self._dates})")

    def of_features(self) -> Iterator[Finding]:
        """Judge features.sql: its rows, its bits, and what it sees."""
        found = self._features()
        base, wanted = found[BASE], rows_of(self.spine)
        if (fault := _other_rows(rows_of(base), wanted)) is not None:
            yield faulty(FEATURES, fault)
            return
        loose = differences(base, found[SHUFFLED])
        if loose:
            yield faulty(FEATURES, f"{named(each.column for each in loose)}: {ORDER}{_last(loose[0])}")
        else:
            yield fine(FEATURES, f"deterministic: the same bits in another order, at {self._dates}")
        steady = _without(base, loose)
        yield from self._of_rules(steady, found)
        apart = differences(self._apart(steady), found[APART].select(steady.column_names)) if APART in found else []
        yield self._of_apart(apart)
        if HALF in found:
            alone = _without(steady, apart)
            yield self._of_half(alone, found[HALF].select(alone.column_names))

    def of_labels(self) -> Iterator[Finding]:
        """Judge labels.sql: it looks at the horizon, and no further."""
        within, beyond = (self._with(self.garden.planted(rule)) for rule in (RULES[2], BEYOND))
        newest = self.newest
        found = self.probe.labels(self.sql["labels"], {BASE: self.base, "within": within, "beyond": beyond}, newest)
        if (fault := _other_rows(rows_of(found[BASE]), rows_of(newest))) is not None:
            yield faulty(LABELS, fault.replace(FEATURES, LABELS))
            return
        late = differences(found[BASE], found["beyond"])
        if late:
            yield faulty(LABELS, f"column label changes with {BEYOND.says}: {late[0].example}; {BEYOND.remedy}")
        if differences(found[BASE], found["within"]):
            yield fine(LABELS, "looks at the horizon" + ("" if late else " and no further"))
        else:
            yield _blind(self.sql["labels"])

    def _faults_of_population(self) -> Iterator[Finding]:
        base = rows_of(self.populations[BASE])
        twice = next(((place, many) for place, many in sorted(base.items(), key=str) if many > 1), None)
        if twice is not None:
            (key, as_of), many = twice
            yield faulty(
                POPULATION,
                f"column key is not unique: {key} is there {many} times as of {as_of:%Y-%m-%d}; give each key once",
            )
        if not base:
            yield faulty(POPULATION, f"nobody is in the population at any of {self._dates}; does it ask for too much?")
        if rows_of(self.populations[SHUFFLED]) != base:
            yield faulty(POPULATION, f"column key: {ORDER}order by a unique column, such as event_id, last")
        yield from self._early(base.keys())

    def _features(self) -> dict[str, pa.Table]:
        worlds = dict(self.worlds)
        if self.sample.dimensions:
            later = {name: self.garden.later(rows, self._keys) for name, rows in self.sample.dimensions.items()}
            worlds[LATER] = World(self.base.events, later)
        found = self.probe.features(self.sql["features"], worlds, self.spine)
        if self.parting is not None:
            found |= self.probe.features(self.sql["features"], {APART: self.base}, self._apart(self.spine))
        if self.garden.pipeline.stream is not None:
            half = World(self.garden.of_half(self.base.events, self._half), self.sample.dimensions)
            found |= self.probe.features(self.sql["features"], {HALF: half}, self._halved(self.spine))
        return found

    def _of_rules(self, base: pa.Table, found: dict[str, pa.Table]) -> Iterator[Finding]:
        names = base.column_names
        early = differences(base, found[PLANTED].select(names))
        seen = self.probe.features(self.sql["features"], self.by_rule, self.spine) if early else {}
        broken = {rule.name: differences(base, seen[rule.name].select(names)) if early else [] for rule in RULES}
        for rule in RULES:
            yield _of_rule(rule, broken[rule.name])
        if early and not any(broken.values()):
            yield _of_rule(TOGETHER, early)
        if LATER in found:
            yield _of_rule(ATTRIBUTES, differences(base, found[LATER].select(names)))

    def _of_apart(self, found: list[Difference]) -> Finding:
        if self.parting is None:
            alone = f"none of {self._dates} has rows of several of the keys that were looked at"
            return noted(FEATURES, f"whether a row depends on the spine's other rows is not known: {alone}")
        part = f"half of the keys as of {self.parting:%Y-%m-%d} alone"
        if not found:
            return fine(FEATURES, f"independent of the spine's other rows: the same bits for {part}")
        return faulty(
            FEATURES,
            f"{named(each.column for each in found)} of a row depend on other rows of the spine, which are others for "
            f"a day, a backfill and an explanation: {found[0].place} has {found[0].was} among all, and {found[0].now} "
            f"for {part}; compare with rows of events that are known at as_of, never with the spine's, also not by "
            "PARTITION BY as_of",
        )

    def _of_half(self, base: pa.Table, half: pa.Table) -> Finding:
        found = differences(self._halved(base), half)
        if not found:
            return fine(FEATURES, "fit for the stream: a key's features depend on its own events alone")
        return faulty(
            FEATURES,
            f"{named(each.column for each in found)} of a key depend on other keys' events, which the stream does not "
            f"see: {found[0].place} has {found[0].was} among all, and {found[0].now} among half of them; use "
            "the key's own events alone, or declare no stream",
        )

    @cached_property
    def _keys(self) -> list[str]:
        return sorted(set(self.spine["key"].to_pylist()))

    @property
    def _half(self) -> list[str]:
        return self._keys[::2]

    def _halved(self, rows: pa.Table) -> pa.Table:
        return rows.filter(pc.is_in(rows["key"], pa.array(self._half, pa.string())))

    def _apart(self, rows: pa.Table) -> pa.Table:
        return self._halved(_at(rows, self.parting))

    def _early(self, base: Set[tuple[Any, Any]]) -> Iterator[Finding]:
        if rows_of(self.populations[PLANTED]).keys() == base:
            return
        seen = self.probe.populations(self.sql["population"], self.by_rule, self.sample.as_ofs)
        for rule in RULES:
            differing = sorted(base ^ rows_of(seen[rule.name]).keys(), key=str)
            for key, as_of in differing[:1]:
                who = key.removesuffix(STRANGER)
                yield faulty(
                    POPULATION,
                    f"column key changes with {rule.says} ({rule.name}): they bring in or out a key such as {who} "
                    f"as of {as_of:%Y-%m-%d}; {rule.remedy}",
                )

    def _with(self, *planted: pa.Table) -> World:
        return World(pa.concat_tables([self.base.events, *planted]), self.sample.dimensions)

    def _shuffled(self) -> World:
        chance = np.random.default_rng(1)
        rows = {name: each.take(chance.permutation(len(each))) for name, each in self.sample.dimensions.items()}
        events = self.base.events
        return World(events.take(chance.permutation(len(events))), rows, PARTS)

    @property
    def _dates(self) -> str:
        return ", ".join(f"{as_of:%Y-%m-%d}" for as_of in self.sample.as_ofs)


def _at(rows: pa.Table, as_of: datetime | None) -> pa.Table:
    return rows.filter(pc.equal(rows["as_of"], pa.scalar(as_of, pa.timestamp("us", "UTC"))))


def _of_rule(rule: Rule, found: list[Difference]) -> Finding:
    if not found:
        return fine(FEATURES, f"point-in-time by {rule.name}: blind to {rule.says}")
    columns = named(each.column for each in found)
    verb = "changes" if len(found) == 1 else "change"
    return faulty(FEATURES, f"{columns} {verb} with {rule.says} ({rule.name}): {found[0].example}; {rule.remedy}")


def _without(rows: pa.Table, found: list[Difference]) -> pa.Table:
    return rows.drop_columns([each.column for each in found if each.column not in SPINE])


def _last(found: Difference) -> str:
    return f"{found.place} has {found.was} and {found.now}; order by a unique column, such as event_id, last"


def _other_rows(given: Mapping[tuple[object, object], int], wanted: Mapping[tuple[object, object], int]) -> str | None:
    for place in sorted({*given, *wanted}, key=str):
        if given.get(place, 0) != wanted.get(place, 0):
            key, as_of = place
            return (
                f"column key is not unique: {given.get(place, 0)} rows for key {key} as of {as_of}, where the spine "
                f"has {wanted.get(place, 0)}; give one row for each row of the spine"
            )
    return None


def _blind(sql: SqlFile) -> Finding:
    if ":horizon_days" in sql.text:
        return noted(LABELS, "no label of the sample changed with events of the horizon: is this label so rare?")
    return faulty(
        LABELS, "column label does not look at the horizon: no label changes with events of it; use :horizon_days"
    )
