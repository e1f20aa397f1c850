"""The training job: read what was known at its as_of, fit and judge in time's order, write report and registry."""

import logging
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.utils.git_utils import get_git_commit
from pyspark.sql import SparkSession

from jobs import artefact
from jobs.erasure.tombstones import without_erased
from jobs.errors import DataFault
from jobs.features import counted_once, feature_names, features, population, with_validity
from jobs.lake import Lake
from jobs.registry import FEATURES, Candidate, ModelVersion, has_alias, register
from jobs.run import Staging
from jobs.scoring import load_scoring_model, require_batch_invariance, require_features
from jobs.spec import Pipeline, Settings
from jobs.sqlfile import naming
from jobs.training import dataset
from jobs.training.baselines import fit_baselines
from jobs.training.dataset import Period, Queries
from jobs.training.evaluation import TRAINED, Judged, describe, evaluate
from jobs.training.fit import fit_champion, hyperparameters
from jobs.training.plots import draw
from jobs.training.report import flat, write_report
from jobs.training.split import mature_dates, split

LOG = logging.getLogger(__name__)
TRAINING_AS_OF = "scoreline.training_as_of"


@dataclass(frozen=True)
class TrainingJob:
    """One training: whose it is, and the instant beyond which it may know nothing."""

    pipeline: Pipeline
    settings: Settings
    as_of: datetime

    @property
    def folder(self) -> Path:
        """Where its report goes."""
        return Path(self.settings.reports) / "training" / self.pipeline.name / f"{self.as_of:%Y-%m-%d}"


def train(spark: SparkSession, pipeline: Pipeline, settings: Settings, as_of: datetime) -> ModelVersion:
    """Train, judge, report and register a model that knows nothing after `as_of` (UTC), and give it the alias.

    Raises:
        TooLittleHistory: no split in time can be made from the labels that are mature at `as_of`.
        DataFault: a table was never ingested, or SQL gives other rows than its contract says.
        ModelRefused: the model's scores depend on the batch; it was not registered.
        Fenced: a key was erased meanwhile that it may have learned from; it was not registered.
        SqlRefused, ArtefactRefused, RegistryUnavailable: as their names say; the alias stays where it was.
    """
    training = TrainingJob(pipeline, settings, as_of)
    queries = dataset.read_queries(settings, pipeline)
    lake = Lake(spark, settings.lake)
    erasures = lake.erasures()  # before anything is read
    versions = _table_versions(lake, pipeline)
    periods, names = _periods(training, lake, queries, versions)
    model, judged = _fitted(periods, names, as_of)
    report = _report(training, periods, names, evaluate(judged)) | {
        "provenance": _provenance(training, queries, versions, len(periods["train"].labels))
    }
    page = write_report(report, draw(judged, report["evaluation"]), training.folder)
    LOG.info("evaluation report: %s", page)
    lake.refuse_erased_since(erasures)
    return register(settings.mlflow_uri, _candidate(training, model, report), pipeline.model.alias)


def has_champion(pipeline: Pipeline, settings: Settings) -> bool:
    """Return whether the pipeline's model has a version with its alias."""
    return has_alias(settings.mlflow_uri, pipeline.model.name, pipeline.model.alias)


def _table_versions(lake: Lake, pipeline: Pipeline) -> dict[str, int]:
    tables = pipeline.tables
    for table in tables:
        if not lake.has(table):
            raise DataFault(f"{table} does not exist: run `scoreline ingest {pipeline.name} --from D --to D` first")
    return {table: lake.appended(table) for table in tables}


def _periods(
    training: TrainingJob, lake: Lake, queries: Queries, versions: dict[str, int]
) -> tuple[dict[str, Period], tuple[str, ...]]:
    """Return the periods and the names of the features."""
    pipeline, horizon = training.pipeline, training.pipeline.label.horizon
    parts = split(mature_dates(pipeline.training, horizon, training.as_of), horizon, pipeline.training)
    known = {table: lake.read_at(table, number) for table, number in versions.items()}
    read = {each: without_erased(rows, training.settings, each) for each, rows in known.items()}
    dimensions = {name: with_validity(read[f"dimensions/{name}"], pipeline.entity_key) for name in pipeline.dimensions}
    # Staged, and not computed again by each of the queries that read it.
    with Staging(lake, f"staging/{pipeline.name}/training/{training.as_of.date()}").attempt() as staging:
        told = counted_once(dataset.visible(read[f"events/{pipeline.events[0]}"], training.as_of), pipeline.entity_key)
        events = staging.write(told, "events")
        with naming(queries.population.path):
            spine = staging.write(population(events, parts.dates, queries.population.text), "spine")
        spine = dataset.sampled(spine, spine.count())
        with naming(queries.features.path):
            seen = staging.write(features(events, spine, dimensions, queries.features.text), "features")
        names = feature_names(seen)
        require_features(seen, names)
        found = dataset.evaluated(seen, queries) | dataset.labelled(seen, events, queries, pipeline.label)
        with naming(*(file.path for file in (queries.evaluation, queries.labels) if file)):
            return dataset.collect(dataset.joined(spine, {"features.sql": seen, **found}), names, parts), names


def _fitted(periods: dict[str, Period], names: tuple[str, ...], as_of: datetime) -> tuple[dict[str, bytes], Judged]:
    """Return the champion's artefact and the test period with the scores of champion and baselines."""
    train, calibration, test = periods["train"], periods["calibration"], periods["test"]
    LOG.info("learning from %d rows, calibrating on %d", len(train.labels), len(calibration.labels))
    files = artefact.build(fit_champion(train, calibration), names, as_of)
    # Judged is what will score: the file read back, by the one scoring function.
    model = load_scoring_model(files[artefact.MODEL_FILE], names)
    require_batch_invariance(model, test.matrix)
    scores = {TRAINED: model.score(test.matrix).astype(np.float64)}
    scores |= {name: baseline.score(test) for name, baseline in fit_baselines(train + calibration).items()}
    return files, Judged(test, scores)


def _report(
    training: TrainingJob, periods: dict[str, Period], names: tuple[str, ...], evaluation: dict[str, Any]
) -> dict[str, Any]:
    return {
        "pipeline": training.pipeline.name,
        "model": training.pipeline.model.name,
        "description": training.pipeline.description,
        "entity_key": training.pipeline.entity_key,
        "as_of": training.as_of.isoformat(),
        "horizon_days": training.pipeline.label.horizon_days,
        "features": list(names),
        "periods": {name: describe(period) for name, period in periods.items()},
        "evaluation": evaluation,
    }


def _provenance(training: TrainingJob, queries: Queries, versions: dict[str, int], rows: int) -> dict[str, Any]:
    return {
        "code_version": _code_version(training.settings.project),
        "table_versions": versions,
        "sql_digests": queries.digests,
        "hyperparameters": hyperparameters(rows),
        "libraries": {name: version(name) for name in ("scikit-learn", "numpy", "skops", "pyspark")},
    }


def _code_version(project: Path) -> str:
    try:
        released = version("scoreline")
    except PackageNotFoundError:  # run from a checkout that was never installed
        released = "0"
    commit = get_git_commit(str(project))
    return f"{released}+{commit[:12]}" if commit else released


def _candidate(training: TrainingJob, files: dict[str, bytes], report: dict[str, Any]) -> Candidate:
    provenance = report["provenance"]
    tags = {
        TRAINING_AS_OF: report["as_of"],
        FEATURES: " ".join(report["features"]),
        "scoreline.code_version": provenance["code_version"],
        **{f"scoreline.sql.{kind}": digest for kind, digest in provenance["sql_digests"].items()},
        **{f"scoreline.table.{table}": str(number) for table, number in provenance["table_versions"].items()},
    }
    metrics = flat(report["evaluation"]["all"]["models"])
    return Candidate(training.pipeline.name, training.pipeline.model.name, files, training.folder, metrics, tags)
