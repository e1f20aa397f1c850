"""Score: features, their suite, the pinned model, the suite of the scores, and only then the scores' partitions.

One date or many take the same way: a run of a day is the case of one.
"""

import logging
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.erasure.tombstones import without_erased
from jobs.errors import DataFault, Fenced, FrameFault
from jobs.features import counted_once, features, population, with_validity
from jobs.quality import Measure, count
from jobs.recorded import Recorded, recorded
from jobs.registry import VerifiedArtefact, fetch
from jobs.replacement import Fences, Result, replace_partitions
from jobs.run import CHAMPION, Dates, Run, Staging
from jobs.scoring import require_features, score_frame
from jobs.sqlfile import naming, pipeline_sql
from jobs.tables import keyed, scores_table
from serving.head import Limits

Reading = Literal["recorded", "newest"]

LOG = logging.getLogger(__name__)
LOOKED_UP = Limits().key_bytes


@dataclass(frozen=True)
class Wish:
    """What to score with: an artefact, and the tables as `reading` says.

    "recorded": as the date was scored from before, the newest where it was not; "newest": which lets late data in.
    """

    artefact: VerifiedArtefact
    reading: Reading = "recorded"


@dataclass(frozen=True)
class Pinned:
    """What dates are scored from: the model's artefact, the versions of the tables by their names, what was before."""

    artefact: VerifiedArtefact
    versions: dict[str, int]
    before: dict[date, Recorded]


def score(run: Run, version: str, digest: str, reading: Reading = "recorded") -> None:
    """Score the population at the run's as_of and replace its partition of the scores table.

    `version` and `digest` pin the artefact of the pipeline's registered model. Raises what `score_dates` raises.
    """
    artefact = fetch(run.settings.mlflow_uri, run.pipeline.model.name, version, digest)
    score_dates(Dates([run], run.staging("score")), Wish(artefact, reading))


def score_dates(dates: Dates, wish: Wish) -> None:
    """Score the population at each of the dates, and replace their partitions: all of them, or none.

    Raises:
        DataFault: the model is refused, or a frame breaks what no suite can waive.
        ExpectationsFailed: features or scores of a date fail their suite. Nothing that was there is touched then.
        Fenced: another attempt of one of the dates committed first, or scored it from other versions.
    """
    run = dates.any
    _refuse_untimely(dates, wish.artefact)
    run.lake.create(keyed(scores_table(run.pipeline.name), run.pipeline.entity_key))
    fences = Fences.of(dates)  # before anything is read: who was overtaken since then shows nothing
    pinned = _pinned(dates, wish)
    with dates.staging.attempt() as staging:
        result = _staged(dates, pinned, staging)
        dates.record("score", _judged(dates, result))
        replace_partitions(dates, result, fences, set(pinned.before))


def newest_versions(run: Run) -> dict[str, int]:
    """Return the newest versions of the tables that a run reads, by their names.

    Raises:
        DataFault: a source was never ingested.
    """
    tables = run.pipeline.tables
    missing = [table for table in tables if not run.lake.has(table)]
    if missing:
        raise DataFault(f"there is no {missing[0]} yet; run `scoreline ingest {run.pipeline.name}` first")
    return {table: run.lake.appended(table) for table in tables}


def score_columns(scored: DataFrame, run: Run, pinned: Pinned) -> DataFrame:
    """Return key, as_of and score with what every row of a scores table carries."""
    model, versions = pinned.artefact.version, pinned.versions
    dimensions = [part for name in run.pipeline.dimensions for part in (F.lit(name), F.lit(versions[_dimension(name)]))]
    return scored.select(
        "key",
        "score",
        "as_of",
        F.to_date("as_of").alias("as_of_date"),
        F.lit(CHAMPION).alias("arm"),
        F.lit(model.name).alias("model_name"),
        F.lit(model.version).alias("model_version"),
        F.lit(model.digest).alias("model_digest"),
        F.lit(versions[_events(run)]).cast("bigint").alias("events_version"),
        F.create_map(*dimensions).cast("map<string,bigint>").alias("dimension_versions"),
        F.lit(run.run_id).alias("run_id"),
    )


def _events(run: Run) -> str:
    return f"events/{run.pipeline.events[0]}"


def _dimension(name: str) -> str:
    return f"dimensions/{name}"


def _refuse_untimely(dates: Dates, artefact: VerifiedArtefact) -> None:
    first, known = min(run.as_of for run in dates.runs), artefact.training_as_of
    if known > first:
        name = dates.any.pipeline.name
        raise DataFault(
            f"model {artefact.version.name} version {artefact.version.version} knows labels up to "
            f"{known:%Y-%m-%d}, after the as_of {first:%Y-%m-%d} to score; "
            f"train one with `scoreline train {name} --as-of {first:%Y-%m-%d}` or score a later day"
        )


def _pinned(dates: Dates, wish: Wish) -> Pinned:
    """Pin the versions of the tables.

    Raises:
        DataFault: a source was never ingested.
        Fenced: the dates were scored from different versions, and so not by who chose to score them in one pass.
    """
    run, newest = dates.any, newest_versions(dates.any)
    before = recorded(run.settings, run.pipeline, dates.as_ofs)
    if wish.reading == "newest":
        return Pinned(wish.artefact, newest, before)
    each = [pins(newest, before.get(as_of)) for as_of in dates.as_ofs]
    if any(versions != each[0] for versions in each):
        raise Fenced(f"scores/{run.pipeline.name}: a date of {dates} was scored meanwhile; run the task again")
    if before:
        LOG.info("scored before, from %s: the same is read again", each[0])
    return Pinned(wish.artefact, each[0], before)


def pins(newest: dict[str, int], before: Recorded | None) -> dict[str, int]:
    """Return the version of each table to read for a date that was scored before, or was not."""
    return newest if before is None else {table: before.versions.get(table, newest[table]) for table in newest}


def _staged(dates: Dates, pinned: Pinned, staging: Staging) -> Result:
    run, model = dates.any, pinned.artefact
    lake = run.lake
    known = {table: lake.read_at(table, number) for table, number in pinned.versions.items()}
    read = {each: without_erased(rows, run.settings, each) for each, rows in known.items()}
    events = counted_once(read[_events(run)], run.pipeline.entity_key)
    dimensions = {
        each: with_validity(read[_dimension(each)], run.pipeline.entity_key) for each in run.pipeline.dimensions
    }
    sql = {kind: pipeline_sql(run.settings, run.pipeline, kind) for kind in ("population", "features")}
    with naming(sql["population"].path):
        spine = staging.write(population(events, [run.as_of for run in dates.runs], sql["population"].text), "spine")
    with naming(sql["features"].path):
        planned = features(events, spine, dimensions, sql["features"].text)
        require_features(planned, model.version.features)
        seen = staging.write(planned, "features")
    rows = dict.fromkeys(dates.as_ofs, 0) | _matched(spine, seen)
    scored = score_columns(score_frame(seen, model.blob, model.version.features), run, pinned)
    return Result(seen, staging.write(scored, "scores"), rows)


def _judged(dates: Dates, result: Result) -> dict[date, list[Measure]]:
    """Return the measures of each date by itself, as those of a run of that date alone."""
    seen = dates.judged("score", result.features, dates.any.pipeline.features.suite)
    _refuse_other_scores(result)
    scored = dates.judged("score", result.scores, dates.any.pipeline.scores.suite)
    return {
        as_of: [count("rows scored", result.rows[as_of]), *map(Measure.of, (*seen[as_of], *scored[as_of]))]
        for as_of in dates.as_ofs
    }


def _matched(spine: DataFrame, seen: DataFrame) -> dict[date, int]:
    """Return how many rows both have, by date, if each has the other's (key, as_of), each once, with a key to look up.

    A date that nobody is in has no entry.
    """
    times = [
        frame.groupBy("key", "as_of").agg(F.count("*").alias("times")).alias(name)
        for name, frame in (("spine", spine), ("features", seen))
    ]
    joined = times[0].join(times[1], F.expr("spine.key <=> features.key AND spine.as_of <=> features.as_of"), "full")
    fits = f"octet_length(spine.key) BETWEEN 1 AND {LOOKED_UP}"
    fine = F.expr(f"coalesce({fits}, false) AND spine.times <=> 1L AND features.times <=> 1L")
    places = (F.coalesce(f"spine.{name}", f"features.{name}") for name in ("key", "as_of"))
    wrong = F.struct(*places, F.expr("ifnull(spine.times, 0)"), F.expr("ifnull(features.times, 0)"))
    date_of = F.to_date(F.coalesce("spine.as_of", "features.as_of"))
    found = joined.groupBy(date_of).agg(F.count("*"), F.min(F.when(~fine, wrong))).collect()
    for _, _, mismatch in found:
        if mismatch is not None:
            raise FrameFault(_mismatch(*mismatch))
    return {as_of: int(rows) for as_of, rows, _ in found}


def _mismatch(key: str | None, as_of: datetime, wanted: int, given: int) -> str:
    if wanted and (key is None or not 1 <= len(key.encode()) <= LOOKED_UP):
        return f"population.sql gave the key {key!r}; give keys of 1 to {LOOKED_UP} bytes, which can be looked up"
    if wanted > 1:
        return f"population.sql gave key {key} {wanted} times at {as_of}; give each key once"
    return (
        f"features.sql gave {given} rows for key {key} at {as_of}, where the spine has {wanted}; "
        "give one row for each row of the spine"
    )


def _refuse_other_scores(result: Result) -> None:
    """Refuse scores that are not finite, or not as many as there are features: the model gave them row by row."""
    found = result.scores.agg(
        F.count("*"), F.min(F.when(F.expr("NOT coalesce(abs(score) < float('Infinity'), false)"), F.col("key")))
    ).collect()[0]
    rows = sum(result.rows.values())
    if found[0] != rows:
        raise FrameFault(f"the model gave {found[0]} scores for {rows} rows; give one for each")
    if found[1] is not None:
        raise FrameFault(f"the model's score of key {found[1]} is not finite; train one that scores every row")
