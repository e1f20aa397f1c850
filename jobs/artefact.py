"""A model's artefact: the files, their digest, and what is refused before a byte of the model is parsed."""

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any

import skops.io
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from jobs.errors import ArtefactRefused

MODEL_FILE = "model.skops"
DESCRIPTION_FILE = "MLmodel"
PICKLES = (".pkl", ".pickle", ".joblib", ".cloudpickle", ".dill")

# What skops does not trust by itself and a model here may hold. A list inside the artefact would protect nobody.
TRUSTED_TYPES = (
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
)


def build(model: Any, features: Sequence[str], training_as_of: datetime) -> dict[str, bytes]:
    """Return the files of `model`'s artefact, by relative path.

    `model` is a fitted scikit-learn classifier over `features`, in this order. The files are an MLflow model with
    signature, which `mlflow.sklearn.load_model` reads too.

    Raises:
        ArtefactRefused: the model holds a type that is not on the allow-list.
    """
    blob = skops.io.dumps(model, compression=zipfile.ZIP_DEFLATED)
    refuse_unknown_types(blob, "the trained model")
    return {DESCRIPTION_FILE: _description(features, training_as_of), MODEL_FILE: blob}


def digest(files: Mapping[str, bytes]) -> str:
    """Return the SHA-256 (hexadecimal) over the files' relative paths and contents, in the order of the paths."""
    state = hashlib.sha256()
    for path in sorted(files):
        for part in (path.encode(), files[path]):
            state.update(len(part).to_bytes(8, "little"))
            state.update(part)
    return state.hexdigest()


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the contents of all files under `folder`, by relative path with forward slashes."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def write_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Write `files` under `folder`."""
    for path, content in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def refuse_foreign_files(names: Sequence[str], what: str) -> None:
    """Refuse an artefact by the names of its files.

    Raises:
        ArtefactRefused: it holds a pickle, or no skops file.
    """
    pickles = [name for name in names if PurePath(name).suffix.lower() in PICKLES]
    if pickles:
        raise ArtefactRefused(
            f"{what} is a pickle ({', '.join(pickles)}), which can run any code when loaded, and was not read; "
            "register it in skops format"
        )
    if MODEL_FILE not in names:
        found = ", ".join(sorted(names)) or "no file"
        raise ArtefactRefused(f"{what} has no {MODEL_FILE} (found: {found}); register it in skops format")


def refuse_unknown_types(blob: bytes, what: str) -> None:
    """Refuse a skops file that could construct what is not on the allow-list; nothing is constructed to find out.

    Raises:
        ArtefactRefused: it is no skops file, or holds a type that is not on the list; the message names the types.
    """
    if not zipfile.is_zipfile(BytesIO(blob)):
        raise ArtefactRefused(
            f"{what}: {MODEL_FILE} is not a skops file, and was not read; register it in skops format"
        )
    try:
        untrusted = set(skops.io.get_untrusted_types(data=blob)) - set(TRUSTED_TYPES)
    except (KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise ArtefactRefused(
            f"{what}: {MODEL_FILE} cannot be audited ({error!r}), and was not loaded; train and register it again"
        ) from error
    if untrusted:
        raise ArtefactRefused(
            f"{what}: {MODEL_FILE} holds types that are not on the allow-list: {', '.join(sorted(untrusted))}; "
            "if you reviewed them, add them to TRUSTED_TYPES in jobs/artefact.py, else train another model"
        )


def read_description(content: bytes, what: str) -> tuple[tuple[str, ...], datetime]:
    """Return the features, in the model's order, and the as_of of the training, as `build` wrote them.

    Raises:
        ArtefactRefused: they are not there.
    """
    try:
        document = YAML(typ="safe").load(content)
        features = tuple(str(column["name"]) for column in json.loads(document["signature"]["inputs"]))
        as_of = datetime.fromisoformat(document["metadata"]["scoreline.training_as_of"])
    except (KeyError, TypeError, ValueError, YAMLError) as error:
        raise ArtefactRefused(
            f"{what}: {DESCRIPTION_FILE} does not name its features and training_as_of ({error!r}); "
            "register it with scoreline train"
        ) from error
    return features, as_of.astimezone(UTC)


def _description(features: Sequence[str], training_as_of: datetime) -> bytes:
    import sklearn
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema

    signature = ModelSignature(
        inputs=Schema([ColSpec("double", name) for name in features]), outputs=Schema([ColSpec("float", "score")])
    )
    description = Model(signature=signature, metadata={"scoreline.training_as_of": training_as_of.isoformat()})
    description.add_flavor(
        "sklearn",
        pickled_model=MODEL_FILE,  # MLflow's name of the field, whatever the format
        serialization_format="skops",
        skops_trusted_types=list(TRUSTED_TYPES),
        sklearn_version=sklearn.__version__,
        code=None,
    )
    with TemporaryDirectory() as folder:
        description.save(f"{folder}/{DESCRIPTION_FILE}")
        return Path(folder, DESCRIPTION_FILE).read_bytes()
