"""The registry: resolved once a run, fetched by digest, and refused with a reason before anything is parsed."""

import pickle
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from socketserver import BaseRequestHandler, TCPServer
from threading import Thread

import mlflow.sklearn
import numpy as np
import pytest
import skops.io
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from sklearn.linear_model import LogisticRegression

from jobs import artefact
from jobs.errors import ArtefactRefused, DataFault, ModelMissing, ModelRefused, RegistryUnavailable
from jobs.registry import (
    DIGEST,
    FEATURES,
    Candidate,
    ModelVersion,
    VerifiedArtefact,
    fetch,
    has_alias,
    promote,
    register,
    resolve,
    resolve_for_run,
)
from jobs.scoring import load_scoring_model
from jobs.spec import load_pipeline
from tests.conftest import ROOT
from tests.jobs.test_scoring import Bomb
from tests.registered import EARLY, PURCHASE_FEATURES, register_small

NAME = "purchase_propensity"
PIPELINE = load_pipeline(ROOT / "dags" / "pipelines", NAME)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tracking store of its own, in a path with a space."""
    return f"sqlite:///{tmp_path_factory.mktemp('registry')}/a store/mlflow.db"


@pytest.fixture
def version(uri: str, tmp_path: Path) -> ModelVersion:
    """A fresh champion, whose files a test may spoil."""
    return register_small(uri, tmp_path / "report")


@pytest.fixture(scope="module")
def sound(uri: str, tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    """A version that no test changes for good."""
    return register_small(uri, tmp_path_factory.mktemp("sound"), seed=3)


@pytest.fixture
def files(uri: str, version: ModelVersion) -> Path:
    """The folder where the store keeps the version's files."""
    return folder_of(uri, version)


def folder_of(uri: str, version: ModelVersion) -> Path:
    source = client(uri).get_model_version_download_uri(version.name, version.version)
    return Path(source.removeprefix("file://").replace("%20", " "))


def client(uri: str) -> MlflowClient:
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def record_digest(uri: str, version: ModelVersion, files: Path) -> ModelVersion:
    """Put the digest of the files as they are now on record, as somebody who can write to the registry could."""
    digest = artefact.digest(artefact.read_files(files))
    client(uri).set_model_version_tag(version.name, version.version, DIGEST, digest)
    return replace(version, digest=digest)


def fetched(uri: str, version: ModelVersion) -> VerifiedArtefact:
    return fetch(uri, version.name, version.version, version.digest)


def test_the_alias_names_a_version_with_digest_and_features(uri: str, version: ModelVersion) -> None:
    assert resolve(uri, NAME, "champion") == version
    assert version.features == PURCHASE_FEATURES
    assert len(version.digest) == 64
    assert has_alias(uri, NAME, "champion")


def test_what_is_fetched_scores_and_knows_its_training(uri: str, version: ModelVersion) -> None:
    found = fetched(uri, version)
    assert found.version == version
    assert found.training_as_of == EARLY
    model = load_scoring_model(found.blob, found.version.features)
    assert model.score(np.ones((3, len(PURCHASE_FEATURES)))).shape == (3,)


def test_mlflow_itself_can_load_the_model(uri: str, sound: ModelVersion) -> None:
    """With MLflow's own loader, as somebody who explores the registry would: it scores as ours does."""
    folder = folder_of(uri, sound)
    assert Model.load(str(folder)).signature.inputs.input_names() == list(PURCHASE_FEATURES)
    matrix = np.random.default_rng(9).exponential(20, (50, len(PURCHASE_FEATURES)))
    theirs = mlflow.sklearn.load_model(str(folder)).predict_proba(matrix)[:, 1].astype(np.float32)
    ours = load_scoring_model(fetched(uri, sound).blob, PURCHASE_FEATURES).score(matrix)
    assert theirs.tolist() == ours.tolist()


@pytest.mark.parametrize(("name", "alias"), [("unheard_of", "champion"), (NAME, "challenger")])
def test_an_unknown_model_or_alias_is_named(uri: str, version: ModelVersion, name: str, alias: str) -> None:
    assert version.name == NAME
    assert not has_alias(uri, name, alias)
    with pytest.raises(ModelMissing, match=f"no model {name} with alias {alias} .* run scoreline train"):
        resolve(uri, name, alias)


def test_an_unknown_version_is_named(uri: str, version: ModelVersion) -> None:
    with pytest.raises(ModelMissing, match="no version 999 of model purchase_propensity"):
        fetch(uri, NAME, "999", version.digest)


def test_a_run_keeps_its_version_when_another_is_promoted(uri: str, version: ModelVersion, tmp_path: Path) -> None:
    run_id = f"backfill__1998-06-01T00:00:00+00:00-{version.version}"
    assert resolve_for_run(uri, PIPELINE, run_id) == version
    promoted = register_small(uri, tmp_path / "next", seed=2)
    assert resolve(uri, NAME, "champion") == promoted != version
    assert resolve_for_run(uri, PIPELINE, run_id) == version
    assert resolve_for_run(uri, PIPELINE, run_id + "-later") == promoted


def test_tasks_of_one_run_that_ask_at_once_get_the_same(uri: str, version: ModelVersion, tmp_path: Path) -> None:
    run_id = f"at once {version.version}"
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: resolve_for_run(uri, PIPELINE, run_id), range(4)))
    register_small(uri, tmp_path / "next", seed=2)
    assert {*found, resolve_for_run(uri, PIPELINE, run_id)} == {version}


@pytest.mark.parametrize("run_id", ["o'clock", 'a"b', "a`b", "a\\b", "a\nb", "", "' OR tags.x = '"])
def test_a_run_id_that_cannot_be_looked_up_is_refused(uri: str, run_id: str) -> None:
    with pytest.raises(DataFault, match="give another"):
        resolve_for_run(uri, PIPELINE, run_id)


@pytest.mark.parametrize("run_id", ["a; b", "a -- b", "1 = 1 OR b", "50 % /* #", "(Öl) AND"])
def test_any_other_run_id_is_looked_up(uri: str, sound: ModelVersion, version: ModelVersion, run_id: str) -> None:
    assert resolve_for_run(uri, PIPELINE, run_id) == version
    client(uri).set_registered_model_alias(NAME, "champion", sound.version)
    assert resolve_for_run(uri, PIPELINE, run_id) == version


def test_a_version_is_promoted_once_it_proves_sound(uri: str, sound: ModelVersion, version: ModelVersion) -> None:
    assert resolve(uri, NAME, "champion") == version
    assert promote(uri, PIPELINE, sound.version, EARLY) == sound
    assert resolve(uri, NAME, "champion") == sound


def test_what_is_unsound_is_not_promoted(uri: str, sound: ModelVersion, version: ModelVersion, files: Path) -> None:
    client(uri).set_registered_model_alias(NAME, "champion", sound.version)
    with pytest.raises(ModelRefused, match="knows labels up to 1998-05-01, after 1998-04-30, the newest as_of"):
        promote(uri, PIPELINE, version.version, EARLY - timedelta(days=1))
    (files / artefact.MODEL_FILE).write_bytes(b"another")
    with pytest.raises(ArtefactRefused, match="it was changed since"):
        promote(uri, PIPELINE, version.version, EARLY)
    for unknown in ("999", "one"):
        with pytest.raises(ModelMissing, match=f"no version {unknown}"):
            promote(uri, PIPELINE, unknown, EARLY)
    assert resolve(uri, NAME, "champion") == sound


@pytest.mark.parametrize("name", [artefact.MODEL_FILE, artefact.DESCRIPTION_FILE])
@pytest.mark.parametrize("place", [0.0, 0.5, 0.999])
def test_one_changed_byte_is_refused(uri: str, sound: ModelVersion, name: str, place: float) -> None:
    files = folder_of(uri, sound)
    original = (files / name).read_bytes()
    content = bytearray(original)
    content[int(place * len(content))] ^= 1
    (files / name).write_bytes(content)
    found = artefact.digest(artefact.read_files(files))
    with pytest.raises(ArtefactRefused) as refused:
        fetched(uri, sound)
    (files / name).write_bytes(original)
    assert fetched(uri, sound).version == sound
    message = str(refused.value)
    assert refused.value.exit_code == 3
    for part in (f"model {NAME} version {sound.version}", sound.digest, found, "train again"):
        assert part in message


def test_an_added_file_is_refused(uri: str, version: ModelVersion, files: Path) -> None:
    (files / "extra.txt").write_text("hello")
    with pytest.raises(ArtefactRefused, match="it was changed since"):
        fetched(uri, version)


def test_a_removed_file_is_refused(uri: str, version: ModelVersion, files: Path) -> None:
    (files / artefact.MODEL_FILE).unlink()
    with pytest.raises(ArtefactRefused, match=r"has no model\.skops \(found: MLmodel\)"):
        fetched(uri, version)


def test_a_version_without_a_digest_is_refused(uri: str, version: ModelVersion) -> None:
    client(uri).delete_model_version_tag(NAME, version.version, DIGEST)
    with pytest.raises(ArtefactRefused, match=f"version {version.version} has no digest on record"):
        fetched(uri, version)
    with pytest.raises(ArtefactRefused, match="has no digest on record"):
        resolve(uri, NAME, "champion")


def test_a_changed_record_is_refused(uri: str, version: ModelVersion) -> None:
    client(uri).set_model_version_tag(NAME, version.version, DIGEST, "0" * 64)
    with pytest.raises(ArtefactRefused, match=f"expects digest {version.digest}, but the registry records {'0' * 64}"):
        fetched(uri, version)


def test_a_pickle_is_refused_unread(uri: str, version: ModelVersion, files: Path, tmp_path: Path) -> None:
    """Even one whose digest somebody recorded."""
    mark = tmp_path / "it ran"
    (files / artefact.MODEL_FILE).unlink()
    (files / "model.pkl").write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(ArtefactRefused, match=r"is a pickle \(model\.pkl\).*was not read"):
        fetched(uri, record_digest(uri, version, files))
    assert not mark.exists()


def test_a_pickle_under_a_false_name_is_refused_unread(
    uri: str, version: ModelVersion, files: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "it ran"
    (files / artefact.MODEL_FILE).write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(ArtefactRefused, match=r"model\.skops is not a skops file, and was not read"):
        fetched(uri, record_digest(uri, version, files))
    assert not mark.exists()


def test_a_zip_that_is_no_model_is_refused(uri: str, version: ModelVersion, files: Path) -> None:
    target = BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("readme.txt", "hello")
    (files / artefact.MODEL_FILE).write_bytes(target.getvalue())
    with pytest.raises(ArtefactRefused, match="cannot be audited"):
        fetched(uri, record_digest(uri, version, files))


def test_a_type_that_is_not_on_our_list_is_refused(uri: str, version: ModelVersion, files: Path) -> None:
    """Whatever the artefact says of itself."""
    (files / artefact.MODEL_FILE).write_bytes(skops.io.dumps({"model": Bomb(Path("x"))}))
    with pytest.raises(ArtefactRefused, match=r"not on the allow-list: .*Bomb"):
        fetched(uri, record_digest(uri, version, files))


def test_a_description_without_features_is_refused(uri: str, version: ModelVersion, files: Path) -> None:
    (files / artefact.DESCRIPTION_FILE).write_text("flavors: {}\n")
    with pytest.raises(ArtefactRefused, match="does not name its features and training_as_of"):
        fetched(uri, record_digest(uri, version, files))


def test_edited_tags_do_not_reorder_features(uri: str, version: ModelVersion) -> None:
    """The order that counts is the one that the digest covers."""
    client(uri).set_model_version_tag(NAME, version.version, FEATURES, " ".join(reversed(PURCHASE_FEATURES)))
    assert fetched(uri, version).version.features == PURCHASE_FEATURES


def test_the_alias_stays_when_registering_fails(uri: str, version: ModelVersion, tmp_path: Path) -> None:
    candidate = Candidate(NAME, NAME, {"model.pkl": b"nothing good"}, tmp_path / "report")
    with pytest.raises(ArtefactRefused, match="is a pickle"):
        register(uri, candidate, "champion")
    assert resolve(uri, NAME, "champion") == version
    experiment = client(uri).get_experiment_by_name(f"{NAME}/training").experiment_id
    newest = client(uri).search_runs([experiment], order_by=["attributes.start_time DESC"], max_results=1)
    assert newest[0].info.status == "FAILED"


def test_the_first_fault_is_told_when_its_record_fails_too(
    uri: str, sound: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MlflowException("the store is gone")

    monkeypatch.setattr(MlflowClient, "set_terminated", fail)
    with pytest.raises(ArtefactRefused, match="is a pickle"):
        register(uri, Candidate(NAME, NAME, {"model.pkl": b"nothing good"}, tmp_path / "report"), "champion")


def test_a_second_pipeline_may_use_plain_scikit_learn(uri: str, tmp_path: Path) -> None:
    chance = np.random.default_rng(1)
    matrix = chance.normal(size=(200, 2))
    model = LogisticRegression().fit(matrix, matrix[:, 0] > 0)
    (tmp_path / "report").mkdir()
    files = artefact.build(model, ("a", "b"), EARLY)
    found = register(uri, Candidate("churn", "churn", files, tmp_path / "report"), "champion")
    assert load_scoring_model(fetched(uri, found).blob, ("a", "b")).score(matrix).shape == (200,)


def test_a_store_that_is_none_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("not a folder")
    with pytest.raises(RegistryUnavailable, match=r"does not answer as it should.*SCORELINE_MLFLOW_URI") as refused:
        resolve(f"sqlite:///{tmp_path}/a file/mlflow.db", NAME, "champion")
    assert refused.value.exit_code == 1


def test_a_server_that_is_away_is_not_asked_for_minutes() -> None:
    """A task has tries of its own, and a stream that waits for one would not hear that it is to stop."""
    asked: list[int] = []

    class Dropping(BaseRequestHandler):
        def handle(self) -> None:
            asked.append(1)

    with TCPServer(("127.0.0.1", 0), Dropping) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        with pytest.raises(RegistryUnavailable, match=r"MLflow at http://127\.0\.0\.1"):
            resolve(f"http://127.0.0.1:{server.server_address[1]}", NAME, "champion")
        server.shutdown()
        thread.join()
    assert 1 <= len(asked) <= 3
