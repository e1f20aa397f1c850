"""Score: features, their suite, the pinned model, the suite of the scores, and only then the scores partition."""

import logging
from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.errors import DataFault, FrameFault
from jobs.features import feature_names, features, population, with_validity
from jobs.lake import Fence
from jobs.quality import Measure, count
from jobs.registry import ModelVersion, VerifiedArtefact, fetch
from jobs.run import CHAMPION, Run, Staging
from jobs.scoring import score_frame
from jobs.sqlfile import read_sql
from jobs.tables import features_table, scores_table, superseded_table

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pinned:
    """What a run reads, fixed at its start: the model's artefact and the version of the events table."""

    artefact: VerifiedArtefact
    events_version: int


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
    run.lake.create(scores_table(run.pipeline.name))
    pinned = Pinned(artefact, _events_version(run))
    fence = run.lake.fence(f"scores/{run.pipeline.name}", f"{run.pipeline.name}/{run.as_of.date()}/{CHAMPION}")
    with run.staging("score").attempt() as staging:
        seen = _staged_features(run, pinned, staging)
        scored, measures = _staged_scores(run, pinned, seen, staging)
        _commit(run, seen, scored, fence)
    run.record("score", measures)


def score_columns(scored: DataFrame, run: Run, model: ModelVersion, events_version: int) -> DataFrame:
    """Return key, as_of and score with what every row of a scores table carries."""
    return scored.select(
        "key",
        "score",
        "as_of",
        F.to_date("as_of").alias("as_of_date"),
        F.lit(CHAMPION).alias("arm"),
        F.lit(model.name).alias("model_name"),
        F.lit(model.version).alias("model_version"),
        F.lit(model.digest).alias("model_digest"),
        F.lit(events_version).cast("bigint").alias("events_version"),
        F.lit(run.run_id).alias("run_id"),
    )


def dimensions(run: Run) -> dict[str, DataFrame]:
    """Return the pipeline's dimensions by name, each with validity intervals."""
    key = run.pipeline.entity_key
    return {name: with_validity(run.lake.read(f"dimensions/{name}"), key) for name in run.pipeline.dimensions}


def _refuse_untimely(run: Run, artefact: VerifiedArtefact) -> None:
    if artefact.training_as_of > run.as_of:
        raise DataFault(
            f"model {artefact.version.name} version {artefact.version.version} knows labels up to "
            f"{artefact.training_as_of:%Y-%m-%d}, after the as_of {run.as_of:%Y-%m-%d} to score; "
            f"train one with `scoreline train {run.pipeline.name} --as-of {run.as_of:%Y-%m-%d}` or score a later day"
        )


def _events_version(run: Run) -> int:
    """Return the version of events that this date was scored from before, else the newest."""
    done = run.lake.read(f"scores/{run.pipeline.name}").where(run.partition).select("events_version").first()
    if done is not None:
        LOG.info("scored before, from version %d of events: the same is read again", done.events_version)
        return int(done.events_version)
    return run.lake.version(f"events/{run.pipeline.events[0]}")


def _staged_features(run: Run, pinned: Pinned, staging: Staging) -> DataFrame:
    name = run.pipeline.name
    events = run.lake.read_at(f"events/{run.pipeline.events[0]}", pinned.events_version)
    sql = {kind: read_sql(run.settings.sql(name, kind)) for kind in ("population", "features")}
    spine = staging.write(population(events, [run.as_of], sql["population"].text), "spine")
    seen = staging.write(features(events, spine, dimensions(run), sql["features"].text), "features")
    _refuse_other_rows(spine, seen, "features.sql")
    _refuse_other_features(feature_names(seen), pinned.artefact)
    return seen


def _staged_scores(run: Run, pinned: Pinned, seen: DataFrame, staging: Staging) -> tuple[DataFrame, list[Measure]]:
    context = {"pipeline": run.pipeline.name, "day": run.day.isoformat()}
    judged = run.gate.check(seen, run.pipeline.features.suite, context)
    model = pinned.artefact.version
    scored = score_frame(seen, pinned.artefact.blob, model.features)
    staged = staging.write(score_columns(scored, run, model, pinned.events_version), "scores")
    _refuse_other_rows(seen, staged, "the model")
    judged += run.gate.check(staged, run.pipeline.scores.suite, context)
    return staged, [count("rows scored", staged.count()), *map(Measure.of, judged)]


def _commit(run: Run, seen: DataFrame, scored: DataFrame, fence: Fence) -> None:
    """Replace the date's features, then its scores; the scores are what makes the run's result visible."""
    name, date = run.pipeline.name, run.as_of.date()
    lake = run.lake
    table = features_table(name, seen.schema)
    lake.create(table)
    dated = seen.withColumn("as_of_date", F.to_date("as_of"))
    lake.replace(dated, table.name, f"as_of_date = DATE'{date}'", lake.fence(table.name, fence.app_id))
    _supersede(run, scored)
    lake.replace(scored, f"scores/{name}", run.partition, fence)
    LOG.info("scores/%s: %d rows for %s", name, scored.count(), date)


def _supersede(run: Run, scored: DataFrame) -> None:
    """Keep what is about to be replaced by other scores: history is rows."""
    name, lake = run.pipeline.name, run.lake
    before = lake.read(f"scores/{name}").where(run.partition)
    compared = ["key", "score", "model_digest", "events_version"]
    if before.isEmpty() or before.select(compared).exceptAll(scored.select(compared)).isEmpty():
        return
    table = superseded_table(name)
    lake.create(table)
    version = lake.last_transaction(f"scores/{name}", f"{name}/{run.as_of.date()}/{CHAMPION}")
    replaced = before.withColumn("superseded_at", F.lit(run.clock.now()))
    lake.append_once(replaced, table.name, f"{name}/{run.as_of.date()}/{CHAMPION}/{version}")


def _refuse_other_rows(expected: DataFrame, found: DataFrame, maker: str) -> None:
    """Refuse a frame that does not have each (key, as_of) of another exactly once."""
    rows, keys = expected.count(), found.select("key", "as_of").distinct()
    missing = expected.select("key", "as_of").exceptAll(keys)
    for row in missing.take(1):
        raise FrameFault(f"{maker} gave no row for key {row.key} at {row.as_of}; give one for each row of the spine")
    if found.count() != rows:
        raise FrameFault(f"{maker} gave {found.count()} rows for a spine of {rows}; give one for each row of the spine")


def _refuse_other_features(names: tuple[str, ...], artefact: VerifiedArtefact) -> None:
    expected = artefact.version.features
    missing = [name for name in expected if name not in names]
    if missing:
        raise DataFault(
            f"features.sql gives no {', '.join(missing)}, which model {artefact.version.name} version "
            f"{artefact.version.version} needs; add them, or train and promote a model on the features there are"
        )
