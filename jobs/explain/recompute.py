"""Computing scores on record again: events as they stood, `features.sql`, the model's artefact, and the bits."""

import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.erasure.tombstones import without_erased
from jobs.errors import DataFault, FrameFault, SqlRefused
from jobs.explain.recorded import ScoreRow, Values
from jobs.features import counted_once, features, with_validity
from jobs.registry import VerifiedArtefact, fetch
from jobs.run import Run
from jobs.scoring import require_features, score_frame
from jobs.sqlfile import naming, pipeline_sql
from jobs.tables import VERSION
from serving.head import Model

Key = tuple[str, Any]


@dataclass(frozen=True)
class Again:
    """What computing a score once more gave."""

    score: float
    features: Values


@dataclass(frozen=True)
class Replay:
    """A score on record beside the same, computed again; `seen` is what the model saw, where that is on record."""

    row: ScoreRow
    again: Again | None
    seen: Values | None
    names: tuple[str, ...]

    @property
    def same_score(self) -> bool:
        """Whether the 32 bits of the score agree."""
        return self.again is not None and struct.pack("<f", self.row.score) == struct.pack("<f", self.again.score)

    @property
    def differing(self) -> tuple[str, ...]:
        """The features of the model whose bits differ from those on record."""
        if self.again is None or self.seen is None:
            return ()
        again, seen = self.again.features, self.seen
        return tuple(name for name in self.names if bits(seen.get(name)) != bits(again.get(name)))

    @property
    def agrees(self) -> bool:
        """Whether all bits do."""
        return self.same_score and not self.differing


@dataclass(frozen=True)
class Models:
    """The artefacts of models that are what was registered, and why others are not to be had."""

    there: Mapping[Model, VerifiedArtefact]
    gone: Mapping[Model, str]

    @classmethod
    def of(cls, run: Run, rows: Iterable[ScoreRow]) -> "Models":
        """Fetch the models of rows, each once.

        Raises:
            RegistryUnavailable: MLflow does not answer.
        """
        there: dict[Model, VerifiedArtefact] = {}
        gone: dict[Model, str] = {}
        for model in sorted({row.model for row in rows}, key=lambda each: (each.name, each.version, each.digest)):
            try:
                there[model] = fetch(run.settings.mlflow_uri, model.name, model.version, model.digest)
            except DataFault as fault:
                gone[model] = str(fault)
        return cls(there, gone)


@dataclass(frozen=True)
class Replays:
    """The rows that were computed again, and why others whose model is there cannot be."""

    done: list[Replay]
    faults: Mapping[ScoreRow, str]


def replays(run: Run, rows: Sequence[ScoreRow], models: Models, seen: Mapping[ScoreRow, Values]) -> Replays:
    """Compute again all rows whose model is there; `seen` is what is on record of their features.

    A row cannot be computed where a table is gone, and where `features.sql` is not what it was: it gives other columns
    than the model takes, or cannot be computed.
    """
    able = [row for row in rows if row.model in models.there]
    if missing := missing_tables(run):
        return Replays([], dict.fromkeys(able, missing))
    done: list[Replay] = []
    faults: dict[ScoreRow, str] = {}
    for group in passes(able):
        artefact = models.there[group[0].model]
        try:
            again = _again(run, group, artefact)
        except (FrameFault, SqlRefused) as fault:
            faults |= dict.fromkeys(group, f"features.sql is not what it was: {fault}")
            continue
        done += [
            Replay(row, again.get((row.key, row.as_of)), seen.get(row), artefact.version.features) for row in group
        ]
    return Replays(done, faults)


def missing_tables(run: Run) -> str:
    """Return what to say where tables that scores are computed from are gone; "" where all are there."""
    missing = ", ".join(table for table in run.pipeline.tables if not run.lake.has(table))
    return f"there is no {missing} any more: no score can be computed again" if missing else ""


def passes(rows: Iterable[ScoreRow]) -> list[list[ScoreRow]]:
    """Return the rows in as few groups as can be computed in one go each.

    Rows of runs share a pass where they were made from the same model and versions, for `features.sql` may look at any
    event that the run saw. The stream gave it the events of some keys alone, so a key's row depends on no other key:
    rows of different keys share a pass, each key with the events of its own version.
    """
    groups: dict[object, list[ScoreRow]] = defaultdict(list)
    times: dict[object, Any] = defaultdict(count)
    for row in rows:
        alone = (row.model, next(times[row.model, row.key])) if row.kind == "stream" else row.made_from
        groups[row.kind == "stream", alone].append(row)
    return list(groups.values())


def bits(value: object) -> bytes | object:
    """Return a number's bits; two values that are equal and differ in them (0.0 and -0.0) are not the same."""
    return struct.pack("<d", value) if isinstance(value, float) else value


def _again(run: Run, group: Sequence[ScoreRow], artefact: VerifiedArtefact) -> dict[Key, Again]:
    names, sql = artefact.version.features, pipeline_sql(run.settings, run.pipeline, "features")
    spine = run.lake.spark.createDataFrame(
        sorted({(row.key, row.as_of) for row in group}), "key string, as_of timestamp"
    )
    with naming(sql.path):
        seen = features(_events(run, group), spine, _dimensions(run, group), sql.text)
        require_features(seen, names)
        seen = seen.persist()  # the features that are shown are those that are scored
        try:
            listed = {_place(row): row for row in seen.toArrow().to_pylist()}
            scored = {
                _place(row): row["score"] for row in score_frame(seen, artefact.blob, names).toArrow().to_pylist()
            }
        finally:
            seen.unpersist()
    return {place: Again(scored[place], listed[place]) for place in listed}


def _place(row: Values) -> Key:
    return row["key"], row["as_of"]


def _events(run: Run, group: Sequence[ScoreRow]) -> DataFrame:
    name, key = f"events/{run.pipeline.events[0]}", run.pipeline.entity_key
    versions = {row.key: row.events_version for row in group}
    return counted_once(_as_it_stood(run, name, group, versions), key)


def _dimensions(run: Run, group: Sequence[ScoreRow]) -> dict[str, DataFrame]:
    found = {}
    for name in run.pipeline.dimensions:
        # A row from before the pipeline had the dimension knows none of its rows.
        versions = {row.key: dict(row.dimension_versions).get(name, -1) for row in group}
        rows = _as_it_stood(run, f"dimensions/{name}", group, versions)
        found[name] = with_validity(rows, run.pipeline.entity_key)
    return found


def _as_it_stood(run: Run, table: str, group: Sequence[ScoreRow], versions: Mapping[str, int]) -> DataFrame:
    """Return a table of deliveries as the rows of a group knew it; of the stream's, each key as its own row did.

    Without erased keys, as whatever scores reads them: somebody may have appended their rows again, past our code.
    """
    if group[0].kind != "stream":
        return without_erased(run.lake.read_at(table, next(iter(versions.values()))), run.settings, table)
    key, listed = run.pipeline.entity_key, sorted(versions.items())
    asked = run.lake.spark.createDataFrame(listed, f"{key} string, newest long")
    known = without_erased(run.lake.read(table), run.settings, table).join(F.broadcast(asked), key)
    return known.where(F.col(VERSION) <= F.col("newest")).drop(VERSION, "newest")
