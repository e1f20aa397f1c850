"""The model that the pipeline's alias names: it is pinned by a digest, and its features are there."""

from collections.abc import Sequence
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from jobs.check.findings import Finding, faulty, fine, noted
from jobs.errors import ArtefactRefused, ModelMissing, RegistryUnavailable
from jobs.registry import ModelVersion, resolve
from jobs.spec import Pipeline, Settings


@dataclass(frozen=True)
class Champion:
    """What the alias names, if it names anything, and what there is to say of it."""

    finding: Finding
    version: ModelVersion | None = None


def champion(settings: Settings, pipeline: Pipeline, features: Sequence[str] | None) -> Champion:
    """Return what the pipeline's alias names; `features` are those of features.sql, or None where it gives none."""
    model, about = pipeline.model, f"model {pipeline.model.name}@{pipeline.model.alias}"
    try:
        version = resolve(settings.mlflow_uri, model.name, model.alias)
    except ModelMissing as fault:
        return Champion(_absent(settings, pipeline, about, str(fault)))
    except (ArtefactRefused, RegistryUnavailable) as fault:
        return Champion(faulty(about, str(fault)))
    missing = [name for name in version.features if features is not None and name not in features]
    if missing:
        said = (
            f"version {version.version} needs {', '.join(missing)}, which features.sql does not give; give them back, "
            f"or train a model without them: `scoreline train {pipeline.name} --as-of D`"
        )
        return Champion(faulty(about, said), version)
    return Champion(_known(version, about, features), version)


def _known(version: ModelVersion, about: str, features: Sequence[str] | None) -> Finding:
    unused = [name for name in features or () if name not in version.features]
    if unused:
        said = f"version {version.version} does not know {', '.join(unused)}: train a model before they are used"
        return noted(about, said)
    return fine(about, f"version {version.version}, digest {version.digest[:12]}, all its features are given")


def _absent(settings: Settings, pipeline: Pipeline, about: str, said: str) -> Finding:
    """Tell a model that was never trained from one of which nobody says which version counts."""
    try:
        client = MlflowClient(tracking_uri=settings.mlflow_uri, registry_uri=settings.mlflow_uri)
        versions = client.search_model_versions(f"name = '{pipeline.model.name}'")
    except MlflowException as error:
        return faulty(about, error.message)
    if not versions:
        return noted(
            about, f"not trained yet: `scoreline train {pipeline.name} --as-of D` is next, once there are events"
        )
    numbers = ", ".join(sorted(str(one.version) for one in versions))
    return faulty(
        about,
        f"unpinned: {said}; there is version {numbers}: `scoreline model promote {pipeline.name} VERSION` pins one",
    )
