"""The scores on record, as rows: of runs, of what later runs replaced, and of the stream; and what the models saw."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final, Literal

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.lake import Lake
from jobs.run import CHAMPION
from serving.head import Model

Kind = Literal["batch", "superseded", "stream"]
Values = dict[str, Any]
TABLES: Final[dict[Kind, str]] = {"batch": "scores", "superseded": "scores_superseded", "stream": "scores_live"}
COLUMNS = (
    "key", "score", "as_of", "as_of_date", "arm", "model_name", "model_version", "model_digest", "events_version",
    "dimension_versions", "run_id",
)  # fmt: skip
# Not every table has them, nor every row.
STAMPS = ("scored_at", "superseded_at")


@dataclass(frozen=True)
class ScoreRow:
    """A score as it is on record, and all that it was made from."""

    kind: Kind
    key: str
    score: float
    as_of: datetime
    model: Model
    events_version: int
    dimension_versions: tuple[tuple[str, int], ...]
    run_id: str
    scored_at: datetime | None = None
    superseded_at: datetime | None = None

    @property
    def date(self) -> date:
        """The date of its partition."""
        return self.as_of.date()

    @property
    def written_at(self) -> datetime:
        """When it was there first, or at the earliest, where that is not on record."""
        return self.scored_at or self.as_of

    @property
    def made_from(self) -> tuple[Model, int, tuple[tuple[str, int], ...]]:
        """Rows that have this in common are computed together."""
        return self.model, self.events_version, self.dimension_versions

    def stood_at(self, at: datetime) -> bool:
        """Return whether it was written, and not replaced yet, at an instant."""
        return self.written_at <= at and (self.superseded_at is None or self.superseded_at > at)


@dataclass(frozen=True)
class Population:
    """All that was scored together as of a date; `features` is None where the lake has them no more."""

    date: date
    scores: DataFrame
    features: DataFrame | None


def all_scores(lake: Lake, pipeline: str) -> DataFrame | None:
    """Return all scores on record with `kind`, `scored_at` and `superseded_at`; None where nothing was ever scored."""
    found: DataFrame | None = None
    for kind, table in TABLES.items():
        if not lake.has(f"{table}/{pipeline}"):
            continue
        rows = lake.read(f"{table}/{pipeline}")
        stamps = [F.col(name) if name in rows.columns else F.lit(None).cast("timestamp").alias(name) for name in STAMPS]
        some = rows.select(F.lit(kind).alias("kind"), *COLUMNS, *stamps).where(F.col("arm") == CHAMPION)
        found = some if found is None else found.unionByName(some)
    return found


def rows_of(scores: DataFrame | None) -> list[ScoreRow]:
    """Return the rows of `all_scores`, or of a part of them, in an order that does not depend on Spark."""
    listed = [] if scores is None else scores.toArrow().to_pylist()
    return sorted(map(_score_row, listed), key=lambda row: (row.key, row.as_of, row.kind, row.events_version))


def seen_by_models(lake: Lake, pipeline: str, rows: Sequence[ScoreRow]) -> dict[ScoreRow, Values]:
    """Return what the model saw of each row, as it is on record; what the stream's saw is on no record."""
    found: dict[ScoreRow, Values] = {}
    batch = [row for row in rows if row.kind == "batch"]
    current = {(each["key"], each["as_of"]): each for each in _features(lake, f"features/{pipeline}", batch)}
    found |= {row: current[row.key, row.as_of] for row in batch if (row.key, row.as_of) in current}
    replaced = [row for row in rows if row.kind == "superseded"]
    times = replaced_together(lake, pipeline) if replaced else {}
    kept = _features(lake, f"features_superseded/{pipeline}", replaced)
    earlier = {(each["key"], each["as_of"], each["superseded_at"]): each for each in kept}
    places = {row: (row.key, row.as_of, times.get((row.date, row.superseded_at))) for row in replaced}
    return found | {row: earlier[place] for row, place in places.items() if place in earlier}


def replaced_together(lake: Lake, pipeline: str) -> dict[tuple[date, datetime | None], datetime]:
    """Return when features were superseded by when their scores were, a moment before: the n-th with the n-th."""
    found: dict[tuple[date, datetime | None], datetime] = {}
    tables = [f"{kind}_superseded/{pipeline}" for kind in ("scores", "features")]
    if not all(map(lake.has, tables)):
        return found
    listed = [lake.read(name).select("as_of_date", "superseded_at").distinct().toArrow().to_pylist() for name in tables]
    for day in {each["as_of_date"] for each in listed[0]}:
        times = [sorted(each["superseded_at"] for each in one if each["as_of_date"] == day) for one in listed]
        found |= {(day, one): other for one, other in zip(*times, strict=False)}
    return found


def has_scores(lake: Lake, pipeline: str, day: date) -> bool:
    """Return whether any score as of a date is on record, current or replaced."""
    names = [f"{kind}/{pipeline}" for kind in (TABLES["batch"], TABLES["superseded"])]
    return any(lake.has(name) and not lake.read(name).where(f"as_of_date = DATE'{day}'").isEmpty() for name in names)


def population_of(lake: Lake, pipeline: str, row: ScoreRow) -> Population:
    """Return those who were scored together with a row; with one of the stream, those of the last run before it."""
    if row.kind == "superseded":
        return _replaced_population(lake, pipeline, row)
    day = row.date if row.kind == "batch" else _last_date(lake, pipeline, row)
    where = f"as_of_date = DATE'{day}'"
    scores = lake.read(f"scores/{pipeline}").where(f"{where} AND arm = '{CHAMPION}'")
    name = f"features/{pipeline}"
    return Population(day, scores, lake.read(name).where(where) if lake.has(name) else None)


def _replaced_population(lake: Lake, pipeline: str, row: ScoreRow) -> Population:
    where, when = F.col("as_of_date") == F.lit(row.date), F.col("superseded_at")
    scores = lake.read(f"scores_superseded/{pipeline}").where(where & (when == F.lit(row.superseded_at)))
    seen_at = replaced_together(lake, pipeline).get((row.date, row.superseded_at))
    if seen_at is None:
        return Population(row.date, scores, None)
    features = lake.read(f"features_superseded/{pipeline}").where(where & (when == F.lit(seen_at)))
    return Population(row.date, scores, features)


def _last_date(lake: Lake, pipeline: str, row: ScoreRow) -> date:
    known = lake.read(f"scores/{pipeline}").where(F.col("as_of_date") <= F.lit(row.date))
    found: date | None = known.agg(F.max("as_of_date")).collect()[0][0]
    return found or row.date


def _features(lake: Lake, table: str, rows: Iterable[ScoreRow]) -> list[Values]:
    places = sorted({(row.key, row.as_of) for row in rows})
    if not places or not lake.has(table):
        return []
    asked = lake.spark.createDataFrame(places, "key string, as_of timestamp")
    dates = sorted({as_of.date() for _, as_of in places})
    near = lake.read(table).where(F.col("as_of_date").isin(dates))
    return list(near.join(F.broadcast(asked), ["key", "as_of"]).toArrow().to_pylist())


def _score_row(row: Values) -> ScoreRow:
    return ScoreRow(
        kind=row["kind"],
        key=row["key"],
        score=row["score"],
        as_of=row["as_of"],
        model=Model(row["model_name"], row["model_version"], row["model_digest"]),
        events_version=row["events_version"],
        dimension_versions=tuple(sorted(row["dimension_versions"] or [])),
        run_id=row["run_id"],
        scored_at=row["scored_at"],
        superseded_at=row["superseded_at"],
    )
