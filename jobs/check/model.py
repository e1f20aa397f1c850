"""The model that the pipeline's alias names: it is pinned by a digest, and its features are there."""

from collections.abc import Sequence

from jobs.check.findings import Finding, faults_of, faulty, fine, noted
from jobs.errors import ModelMissing
from jobs.registry import ModelVersion, resolve
from jobs.registry_access import client, talking
from jobs.spec import Pipeline, Settings


def champion(settings: Settings, pipeline: Pipeline, features: Sequence[str] | None) -> Finding:
    """Judge what the pipeline's alias names; `features` are those of features.sql, or None where it gives none."""
    about = f"model {pipeline.model.name}@{pipeline.model.alias}"
    found: list[Finding] = []
    with faults_of(about, found):
        found.append(_judged(settings, pipeline, about, features))
    return found[0]


def _judged(settings: Settings, pipeline: Pipeline, about: str, features: Sequence[str] | None) -> Finding:
    try:
        version = resolve(settings.mlflow_uri, pipeline.model.name, pipeline.model.alias)
    except ModelMissing as fault:
        return _absent(settings, pipeline, about, str(fault))
    missing = [name for name in version.features if features is not None and name not in features]
    if missing:
        said = (
            f"version {version.version} needs {', '.join(missing)}, which features.sql does not give; give them back, "
            f"or train a model without them: `scoreline train {pipeline.name} --as-of D`"
        )
        return faulty(about, said)
    return _known(version, about, features)


def _known(version: ModelVersion, about: str, features: Sequence[str] | None) -> Finding:
    unused = [name for name in features or () if name not in version.features]
    if unused:
        said = f"version {version.version} does not know {', '.join(unused)}: train a model before they are used"
        return noted(about, said)
    return fine(about, f"version {version.version}, digest {version.digest[:12]}, all its features are given")


def _absent(settings: Settings, pipeline: Pipeline, about: str, said: str) -> Finding:
    """Tell a model that was never trained from one of which nobody says which version counts."""
    with talking(settings.mlflow_uri):
        versions = client(settings.mlflow_uri).search_model_versions(f"name = '{pipeline.model.name}'")
    if not versions:
        return noted(
            about, f"not trained yet: `scoreline train {pipeline.name} --as-of D` is next, once there are events"
        )
    numbers = ", ".join(sorted(str(one.version) for one in versions))
    return faulty(
        about,
        f"unpinned: {said}; there is version {numbers}: `scoreline model promote {pipeline.name} VERSION` pins one",
    )
