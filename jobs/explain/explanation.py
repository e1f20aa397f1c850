"""Why a key got its score at an instant: looked up first, with what is gone; then computed again and taken apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pyspark.sql import functions as F

from jobs.erasure.tombstones import Tombstones
from jobs.errors import RegistryUnavailable
from jobs.explain.contributions import SAMPLED, SEED, Contributions, contributions
from jobs.explain.recompute import Models, Replay, missing_tables, replays
from jobs.explain.recorded import (
    Population,
    ScoreRow,
    Values,
    all_scores,
    has_scores,
    population_of,
    rows_of,
    seen_by_models,
)
from jobs.explain.served import Served, before, served_at
from jobs.publication.ledger import Ledger
from jobs.run import Run
from jobs.scoring import load_scoring_model


@dataclass(frozen=True)
class Subject:
    """What is on record of a key: what was served, its last score before that, and what of all that is gone."""

    key: str
    served: Served
    before: ScoreRow | None
    models: Models
    gone: tuple[str, ...]

    @property
    def rows(self) -> list[ScoreRow]:
        """The score that is explained and the one before it, as far as there are any."""
        return [row for row in (self.served.row, self.before) if row is not None]

    @property
    def names(self) -> tuple[str, ...]:
        """The features of the model that made the score; none where it is not there."""
        made = self.models.there.get(self.served.row.model) if self.served.row else None
        return made.version.features if made else ()


@dataclass(frozen=True)
class Place:
    """Where a score stands among all of a date: so many are higher, and so many lower."""

    of: int
    higher: int
    lower: int
    mean: float


@dataclass(frozen=True)
class Change:
    """What changed since the key's last score; features by name, with their values then and now."""

    row: ScoreRow
    features: tuple[tuple[str, object, object], ...]


@dataclass(frozen=True)
class Explanation:
    """All that can be said of a score; what is None cannot, and `subject.gone` and `fault` say why."""

    subject: Subject
    replay: Replay | None
    fault: str
    features: Values | None
    place: Place | None
    change: Change | None
    contributions: Contributions | None


def look(run: Run, key: str, at: datetime) -> Subject:
    """Return what is on record of a key's score at an instant, and what is gone of what explains it."""
    name = run.pipeline.name
    scores = all_scores(run.lake, name)
    rows = rows_of(None if scores is None else scores.where(F.col("key") == F.lit(key)))
    history = Ledger.of(run.settings, name, run.clock).read()
    served = served_at(history, rows, at, lambda day: has_scores(run.lake, name, day))
    last = before(rows, served.row, at) if served.row else None
    models = _models(run, [row for row in (served.row, last) if row])
    if _is_erased(run, key):
        gone = ["this key was erased: nothing of it is on record, and nothing can be explained"]
    else:
        gone = _gone(run, rows, served, models)
    return Subject(key, served, last, models, tuple(gone))


def explain(run: Run, subject: Subject) -> Explanation:
    """Compute the score again from what it was made of, and say what made it what it is."""
    row, last = subject.served.row, subject.before
    if row is None:
        return Explanation(subject, None, "", None, None, None, None)
    seen = seen_by_models(run.lake, run.pipeline.name, subject.rows)
    found = replays(run, subject.rows, subject.models, seen)
    again = {each.row: each for each in found.done}
    population = population_of(run.lake, run.pipeline.name, row)
    values = _values(row, seen, again)
    return Explanation(
        subject,
        again.get(row),
        found.faults.get(row, ""),
        values,
        _place(population, row),
        _change(last, subject.names, _values(last, seen, again), values) if last else None,
        _taken_apart(subject, values, population),
    )


def _models(run: Run, rows: Sequence[ScoreRow]) -> Models:
    """Fetch the models of rows; where MLflow does not answer, what is on record can be told all the same."""
    try:
        return Models.of(run, rows)
    except RegistryUnavailable as fault:
        return Models({}, {row.model: str(fault) for row in rows})


def _is_erased(run: Run, key: str) -> bool:
    barred = Tombstones(run.settings).of(run.pipeline.events[0], [run.pipeline.entity_key])
    return any(erased.has(key) for erased in barred)


def _gone(run: Run, rows: Sequence[ScoreRow], served: Served, models: Models) -> list[str]:
    name, found = run.pipeline.name, []
    if not rows:
        found.append(f"no score of this key is on record in {name}: it is unknown, misspelt (keys are text), or erased")
    elif served.row is None:
        dates = f"{min(row.as_of for row in rows):%Y-%m-%d} to {max(row.as_of for row in rows):%Y-%m-%d}"
        found.append(f"there is nothing to compute again; the key's scores are as of {dates}: give one of these --at")
    elif served.source == "nothing":
        found.append("nothing was served; what follows is about the newest score that was on record")
    if missing := missing_tables(run):
        found.append(missing)
    found += [f"{fault}. Without the model nothing is computed again or taken apart" for fault in models.gone.values()]
    return found


def _values(row: ScoreRow | None, seen: dict[ScoreRow, Values], again: dict[ScoreRow, Replay]) -> Values | None:
    """Return what the model saw: what is on record, else what was computed again."""
    if row is None:
        return None
    if row in seen:
        return seen[row]
    replay = again.get(row)
    return replay.again.features if replay and replay.again else None


def _place(population: Population, row: ScoreRow) -> Place | None:
    score = F.lit(row.score).cast("float")
    found = population.scores.agg(
        F.count("*"), F.count_if(F.col("score") > score), F.count_if(F.col("score") < score), F.avg("score")
    ).collect()[0]
    return Place(found[0], found[1], found[2], found[3]) if found[0] else None


def _change(last: ScoreRow, names: Sequence[str], old: Values | None, new: Values | None) -> Change:
    if old is None or new is None:
        return Change(last, ())
    changed = ((name, old.get(name), new.get(name)) for name in names)
    return Change(last, tuple(each for each in changed if each[1] != each[2]))


def _taken_apart(subject: Subject, values: Values | None, population: Population) -> Contributions | None:
    row = subject.served.row
    if row is None or values is None or population.features is None or row.model not in subject.models.there:
        return None
    artefact = subject.models.there[row.model]
    names = artefact.version.features
    if any(name not in population.features.columns for name in names):
        return None
    drawn = population.features.orderBy(F.xxhash64("key", F.lit(SEED)), "key").limit(SAMPLED)
    sample = drawn.select(*names).toArrow().to_pylist()
    return contributions(load_scoring_model(artefact.blob, names), values, sample) if sample else None
