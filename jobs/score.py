"""Score: features, their suite, the pinned model, the suite of the scores, and only then the scores partition."""

import logging
from dataclasses import dataclass
from datetime import datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.errors import DataFault, FrameFault
from jobs.features import counted_once, features, population, with_validity
from jobs.lake import Fence
from jobs.quality import Measure, count
from jobs.registry import VerifiedArtefact, fetch
from jobs.run import CHAMPION, Run, Staging
from jobs.scoring import require_features, score_frame
from jobs.sqlfile import naming, pipeline_sql
from jobs.tables import Table, features_table, keyed, scores_table, superseded
from serving.head import Limits

LOG = logging.getLogger(__name__)
LOOKED_UP = Limits().key_bytes


@dataclass(frozen=True)
class Pinned:
    """What a run reads, fixed at its start: the model's artefact, and the versions of the tables by their names."""

    artefact: VerifiedArtefact
    versions: dict[str, int]
    scored_before: bool


@dataclass(frozen=True)
class Result:
    """What an attempt has staged: the features and the scores, and how many rows each of them has."""

    features: DataFrame
    scores: DataFrame
    rows: int


def score(run: Run, version: str, digest: str) -> None:
    """Score the population at the run's as_of and replace its partition of the scores table.

    `version` and `digest` pin the artefact of the pipeline's registered model.

    Raises:
        DataFault: the model is refused, or a frame breaks what no suite can waive.
        ExpectationsFailed: features or scores fail their suite. Nothing that was there is touched then.
        Fenced: another attempt of this run's date committed first.
    """
    artefact = fetch(run.settings.mlflow_uri, run.pipeline.model.name, version, digest)
    _refuse_untimely(run, artefact)
    run.lake.create(keyed(scores_table(run.pipeline.name), run.pipeline.entity_key))
    fences = _fences(run)  # before anything is read: who was overtaken since then shows nothing
    pinned = _pinned(run, artefact)
    with run.staging("score").attempt() as staging:
        result = _staged(run, pinned, staging)
        run.record("score", [count("rows scored", result.rows), *_judged(run, result)])
        _commit(run, pinned, result, fences)


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


def _fences(run: Run) -> tuple[Fence, Fence]:
    """Return the right to replace the date's features, and that to replace its scores."""
    name, application = run.pipeline.name, f"{run.pipeline.name}/{run.as_of.date()}/{CHAMPION}"
    return run.lake.fence(f"features/{name}", application), run.lake.fence(f"scores/{name}", application)


def _refuse_untimely(run: Run, artefact: VerifiedArtefact) -> None:
    if artefact.training_as_of > run.as_of:
        raise DataFault(
            f"model {artefact.version.name} version {artefact.version.version} knows labels up to "
            f"{artefact.training_as_of:%Y-%m-%d}, after the as_of {run.as_of:%Y-%m-%d} to score; "
            f"train one with `scoreline train {run.pipeline.name} --as-of {run.as_of:%Y-%m-%d}` or score a later day"
        )


def _pinned(run: Run, artefact: VerifiedArtefact) -> Pinned:
    """Pin the versions that this date was scored from before, else the newest.

    Raises:
        DataFault: a source was never ingested.
    """
    done = run.lake.read(f"scores/{run.pipeline.name}").where(run.partition).first()
    tables = run.pipeline.tables
    missing = [table for table in tables if not run.lake.has(table)]
    if missing:
        raise DataFault(f"there is no {missing[0]} yet; run `scoreline ingest {run.pipeline.name}` first")
    versions = {table: run.lake.appended(table) for table in tables}
    if done is not None:
        before = {_dimension(name): number for name, number in (done.dimension_versions or {}).items()}
        versions |= {_events(run): done.events_version, **before}
        LOG.info("scored before, from %s: the same is read again", versions)
    return Pinned(artefact, versions, done is not None)


def _staged(run: Run, pinned: Pinned, staging: Staging) -> Result:
    lake, model = run.lake, pinned.artefact
    read = {table: lake.read_at(table, number) for table, number in pinned.versions.items()}
    events = counted_once(read[_events(run)], run.pipeline.entity_key)
    dimensions = {
        each: with_validity(read[_dimension(each)], run.pipeline.entity_key) for each in run.pipeline.dimensions
    }
    sql = {kind: pipeline_sql(run.settings, run.pipeline, kind) for kind in ("population", "features")}
    with naming(sql["population"].path):
        spine = staging.write(population(events, [run.as_of], sql["population"].text), "spine")
    with naming(sql["features"].path):
        planned = features(events, spine, dimensions, sql["features"].text)
        require_features(planned, model.version.features)
        seen = staging.write(planned, "features")
    rows = _matched(spine, seen)
    scored = score_columns(score_frame(seen, model.blob, model.version.features), run, pinned)
    return Result(seen, staging.write(scored, "scores"), rows)


def _judged(run: Run, result: Result) -> list[Measure]:
    judged = run.judged("score", result.features, run.pipeline.features.suite)
    _refuse_other_scores(result)
    judged += run.judged("score", result.scores, run.pipeline.scores.suite)
    return [Measure.of(one) for one in judged]


def _commit(run: Run, pinned: Pinned, result: Result, fences: tuple[Fence, Fence]) -> None:
    """Replace the date's features, then its scores; the scores are what makes the run's result visible."""
    name, date = run.pipeline.name, run.as_of.date()
    table = features_table(name, result.features.schema)
    run.lake.create(table)
    if pinned.scored_before:
        _supersede(run, table, result, fences[1])
    dated = result.features.withColumn("as_of_date", F.to_date("as_of"))
    run.lake.replace(dated, table.name, f"as_of_date = DATE'{date}'", fences[0])
    run.lake.replace(result.scores, f"scores/{name}", run.partition, fences[1])
    LOG.info("scores/%s: %d rows for %s", name, result.rows, date)


def _supersede(run: Run, features: Table, result: Result, fence: Fence) -> None:
    """Keep what is about to be replaced by other scores, or by more of them: history is rows."""
    name, lake = run.pipeline.name, run.lake
    before = lake.read(f"scores/{name}").where(run.partition)
    compared = ["key", "score", "model_version", "model_digest", "events_version"]
    gone = before.select(compared).exceptAll(result.scores.select(compared))
    if before.count() == result.rows and gone.isEmpty():
        return
    seen = lake.read(features.name).where(f"as_of_date = DATE'{run.as_of.date()}'")
    for table, rows in ((superseded(scores_table(name)), before), (superseded(features), seen)):
        lake.create(table)
        replaced = rows.withColumn("superseded_at", F.lit(run.clock.now())).select(*table.names)
        lake.append_once(replaced, table.name, f"{fence.app_id}/{fence.version - 1}")


def _matched(spine: DataFrame, seen: DataFrame) -> int:
    """Return how many rows both have, if each has the other's (key, as_of), each once, with a key for lookups."""
    times = [
        frame.groupBy("key", "as_of").agg(F.count("*").alias("times")).alias(name)
        for name, frame in (("spine", spine), ("features", seen))
    ]
    joined = times[0].join(times[1], F.expr("spine.key <=> features.key AND spine.as_of <=> features.as_of"), "full")
    fits = f"octet_length(spine.key) BETWEEN 1 AND {LOOKED_UP}"
    fine = F.expr(f"coalesce({fits}, false) AND spine.times <=> 1L AND features.times <=> 1L")
    places = (F.coalesce(f"spine.{name}", f"features.{name}") for name in ("key", "as_of"))
    wrong = F.struct(*places, F.expr("ifnull(spine.times, 0)"), F.expr("ifnull(features.times, 0)"))
    found = joined.agg(F.count("*"), F.min(F.when(~fine, wrong))).collect()[0]
    if found[1] is not None:
        raise FrameFault(_mismatch(*found[1]))
    return int(found[0])


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
    if found[0] != result.rows:
        raise FrameFault(f"the model gave {found[0]} scores for {result.rows} rows; give one for each")
    if found[1] is not None:
        raise FrameFault(f"the model's score of key {found[1]} is not finite; train one that scores every row")
