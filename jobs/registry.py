"""The model registry: what a run resolves once, fetches by digest, and what training registers. MLflow behind it."""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow.artifacts import download_artifacts, list_artifacts
from mlflow.environment_variables import MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR
from mlflow.exceptions import MlflowException

from jobs import artefact
from jobs.errors import ArtefactRefused, DataFault, ModelMissing, ModelRefused
from jobs.registry_access import artefacts, client, talking
from jobs.spec import Pipeline

DIGEST = "scoreline.digest"
FEATURES = "scoreline.features"
RUN_ID = "scoreline.run_id"
MODEL_TAGS = ("scoreline.model_name", "scoreline.model_version", "scoreline.model_digest")
# What cannot end the quoted text of MLflow's filter, whatever else it has.
RUN_ID_TEXT = re.compile(r"[^'\"`\\\x00-\x1f\x7f]+")


@dataclass(frozen=True)
class ModelVersion:
    """A registered version: its number, the digest of its artefact, and its features in the model's order."""

    name: str
    version: str
    digest: str
    features: tuple[str, ...]


@dataclass(frozen=True)
class VerifiedArtefact:
    """A version's model (a skops file), read once and found to be what was registered."""

    version: ModelVersion
    blob: bytes
    training_as_of: datetime


@dataclass(frozen=True)
class Candidate:
    """A trained model that is to be registered: its artefact's files, and what is known about it."""

    pipeline: str
    name: str
    files: Mapping[str, bytes]
    report: Path
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


def has_alias(uri: str, name: str, alias: str) -> bool:
    """Return whether the registered model `name` has a version with this alias."""
    try:
        _by_alias(uri, name, alias)
    except ModelMissing:
        return False
    return True


def resolve(uri: str, name: str, alias: str) -> ModelVersion:
    """Return the version that `alias` names now.

    Raises:
        ModelMissing: there is no such model or alias.
        ArtefactRefused: no digest was recorded for it.
    """
    return _model_version(_by_alias(uri, name, alias))


def numbered(uri: str, name: str, version: str) -> ModelVersion:
    """Return a version by its number.

    Raises:
        ModelMissing: there is no such version.
        ArtefactRefused: no digest was recorded for it.
    """
    return _model_version(_version(uri, name, version))


def resolve_for_run(
    uri: str, pipeline: Pipeline, run_id: str, choose: Callable[[], ModelVersion] | None = None
) -> ModelVersion:
    """Return the version that the run `run_id` works with: resolved when first asked, the recorded one ever after.

    It is what `choose` says; without that, what the alias names.

    The record is an MLflow run in the experiment `<pipeline>/runs`, made in one write with its tags. Should two
    tasks of one run make one at the same time, the earlier counts.

    Raises:
        ModelMissing: there is no such model or alias, or the recorded version was deleted.
    """
    experiment = _experiment(uri, f"{pipeline.name}/runs")
    recorded = _recorded(uri, experiment, run_id)
    if recorded is None:
        found = choose() if choose else resolve(uri, pipeline.model.name, pipeline.model.alias)
        record = dict(zip(MODEL_TAGS, (found.name, found.version, found.digest), strict=True))
        with talking(uri):
            run = client(uri).create_run(experiment, run_name=run_id, tags={RUN_ID: run_id, **record})
            client(uri).set_terminated(run.info.run_id)
        recorded = _recorded(uri, experiment, run_id) or (found.name, found.version, found.digest)
    name, version, digest = recorded
    return ModelVersion(name, version, digest, _features(_version(uri, name, version)))


def fetch(uri: str, name: str, version: str, digest: str) -> VerifiedArtefact:
    """Return the artefact of a version after checking it, before a byte of the model is parsed.

    Raises:
        ModelMissing: there is no such version.
        ArtefactRefused: no digest was recorded, it is not `digest`, the files have another one (a byte was changed), it
            is a pickle, or holds a type that is not on the allow-list.
    """
    known = _model_version(_version(uri, name, version))
    what = f"model {name} version {version}"
    if known.digest != digest:
        raise ArtefactRefused(
            f"{what}: the run expects digest {digest}, but the registry records {known.digest}; somebody changed the "
            "record: start a new run to take it, or restore the tag " + DIGEST
        )
    files = _download(uri, name, version, what)
    found = artefact.digest(files)
    if found != digest:
        raise ArtefactRefused(
            f"{what}: its artefact has digest {found}, but {digest} was registered; it was changed since: restore it "
            "from a backup, or train again and promote another version"
        )
    artefact.refuse_unknown_types(files[artefact.MODEL_FILE], what)
    features, training_as_of = artefact.read_description(files.get(artefact.DESCRIPTION_FILE, b""), what)
    # The tag is for people and may be edited; what the digest covers is what counts.
    return VerifiedArtefact(ModelVersion(name, version, digest, features), files[artefact.MODEL_FILE], training_as_of)


def register(uri: str, candidate: Candidate, alias: str) -> ModelVersion:
    """Register a candidate with its report, read it back as a scoring run would, and only then give it `alias`.

    Raises:
        ArtefactRefused: what was read back is not what was registered; the alias stays where it was.
        RegistryUnavailable: MLflow does not answer; the alias stays where it was.
    """
    experiment = _experiment(uri, f"{candidate.pipeline}/training")
    with talking(uri):
        run = client(uri).create_run(experiment, tags=dict(candidate.tags))
        try:
            version = _upload(uri, candidate, run)
            verified = fetch(uri, version.name, version.version, version.digest)
        except BaseException:
            with suppress(Exception):  # the first fault is the one to tell, and this may fail for the same reason
                client(uri).set_terminated(run.info.run_id, "FAILED")
            raise
        client(uri).set_terminated(run.info.run_id)
        client(uri).set_registered_model_alias(candidate.name, alias, version.version)
    return verified.version


def promote(uri: str, pipeline: Pipeline, version: str, newest_as_of: datetime) -> ModelVersion:
    """Give the pipeline's alias to a registered version, after reading its artefact as a scoring run would.

    Raises:
        ModelMissing, ArtefactRefused: there is no such version, or its artefact is not what was registered.
        ModelRefused: it knows labels after `newest_as_of`, so that no run could score with it yet.
    """
    model = pipeline.model
    found = fetch(uri, model.name, version, numbered(uri, model.name, version).digest)
    if found.training_as_of > newest_as_of:
        raise ModelRefused(
            f"model {model.name} version {version} knows labels up to {found.training_as_of:%Y-%m-%d}, after "
            f"{newest_as_of:%Y-%m-%d}, the newest as_of to score; {model.alias} stays where it is: promote it later"
        )
    with talking(uri):
        client(uri).set_registered_model_alias(model.name, model.alias, version)
    return found.version


def _upload(uri: str, candidate: Candidate, run: Any) -> ModelVersion:
    mlflow, run_id = client(uri), run.info.run_id
    for name, value in candidate.metrics.items():
        mlflow.log_metric(run_id, name, value)
    mlflow.log_artifacts(run_id, str(candidate.report), "report")
    with TemporaryDirectory() as folder:
        artefact.write_files(candidate.files, Path(folder))
        mlflow.log_artifacts(run_id, folder, "model")
    if not mlflow.search_registered_models(f"name = '{candidate.name}'"):
        mlflow.create_registered_model(candidate.name)
    tags = {**candidate.tags, DIGEST: artefact.digest(candidate.files)}
    made = mlflow.create_model_version(
        candidate.name, source=f"{run.info.artifact_uri}/model", run_id=run_id, tags=tags
    )
    return _model_version(made)


def _download(uri: str, name: str, version: str, what: str) -> dict[str, bytes]:
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set(False)
    with talking(uri), TemporaryDirectory() as folder:
        source = client(uri).get_model_version_download_uri(name, version)
        listed = list_artifacts(artifact_uri=source, tracking_uri=uri)
        artefact.refuse_foreign_files([Path(entry.path).name for entry in listed], what)
        where = download_artifacts(artifact_uri=source, dst_path=folder, tracking_uri=uri)
        files = artefact.read_files(Path(where))
    artefact.refuse_foreign_files(list(files), what)
    return files


def _recorded(uri: str, experiment: str, run_id: str) -> tuple[str, str, str] | None:
    if not RUN_ID_TEXT.fullmatch(run_id):
        raise DataFault(f"run id {run_id!r} is empty, or has a quote, a backslash or a control character; give another")
    with talking(uri):
        runs = client(uri).search_runs(
            [experiment], f"tags.`{RUN_ID}` = '{run_id}'", order_by=["attributes.start_time ASC"], max_results=1
        )
    if not runs:
        return None
    name, version, digest = (runs[0].data.tags[tag] for tag in MODEL_TAGS)
    return name, version, digest


def _by_alias(uri: str, name: str, alias: str) -> Any:
    remedy = f"there is no model {name} with alias {alias} in {uri}; run scoreline train, or set the alias in MLflow"
    with talking(uri, remedy):
        return client(uri).get_model_version_by_alias(name, alias)


def _version(uri: str, name: str, version: str) -> Any:
    with talking(uri, f"there is no version {version} of model {name} in {uri}; run scoreline train or restore it"):
        return client(uri).get_model_version(name, version)


def _model_version(entity: Any) -> ModelVersion:
    digest = entity.tags.get(DIGEST)
    if not digest:
        raise ArtefactRefused(
            f"model {entity.name} version {entity.version} has no digest on record (tag {DIGEST}), so that its "
            "artefact cannot be checked and was not read; register it with scoreline train"
        )
    return ModelVersion(entity.name, str(entity.version), digest, _features(entity))


def _features(entity: Any) -> tuple[str, ...]:
    return tuple(entity.tags.get(FEATURES, "").split())


def _experiment(uri: str, name: str) -> str:
    with talking(uri):
        found = client(uri).get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        try:
            return str(client(uri).create_experiment(name, artifact_location=artefacts(uri)))
        except MlflowException:  # somebody else made it between the two lines
            return str(client(uri).get_experiment_by_name(name).experiment_id)
