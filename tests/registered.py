"""Small models for tests: fitted in a blink, registered as the real ones are."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from mlflow import MlflowClient
from sklearn.ensemble import HistGradientBoostingClassifier

from jobs import artefact
from jobs.registry import Candidate, ModelVersion, register
from jobs.registry_access import SQLITE
from jobs.training.job import TRAINING_AS_OF

PURCHASE_FEATURES = (
    "recency_days", "tenure_days", "purchase_days", "spent_total", "basket_value_mean", "basket_items_mean",
    "gap_mean_days", "gap_last_days", "gap_std_days", "purchases_30d", "purchases_90d", "purchases_180d",
    "purchases_365d", "spent_30d", "spent_90d", "spent_180d", "spent_365d", "share_spent_90d",
)  # fmt: skip
EARLY = datetime(1998, 5, 1, tzinfo=UTC)


@cache
def empty_store() -> bytes:
    """Return the file of an MLflow without models: it takes MLflow seconds to make one."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "mlflow.db")
        MlflowClient(f"{SQLITE}{path}").search_registered_models()
        return path.read_bytes()


def furnish(uri: str) -> None:
    """Put an empty MLflow where a file of SQLite is named that is not there yet."""
    path = Path(uri.removeprefix(SQLITE))
    if uri.startswith(SQLITE) and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(empty_store())


def register_small(
    uri: str,
    folder: Path,
    seed: int = 1,
    training_as_of: datetime = EARLY,
    features: Sequence[str] = PURCHASE_FEATURES,
) -> ModelVersion:
    """Register trees over some features, learned from noise with some sense in it, as the champion."""
    furnish(uri)
    chance = np.random.default_rng(seed)
    matrix = chance.exponential(20, (2_000, len(features)))
    labels = chance.random(len(matrix)) < 0.1 + 0.2 * (matrix[:, 3] > 20)  # spent_total
    model = HistGradientBoostingClassifier(max_iter=8, early_stopping=False, random_state=seed).fit(matrix, labels)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text("{}")
    files = artefact.build(model, features, training_as_of)
    tags = {"scoreline.features": " ".join(features), TRAINING_AS_OF: training_as_of.isoformat()}
    candidate = Candidate("purchase_propensity", "purchase_propensity", files, folder, tags=tags)
    return register(uri, candidate, "champion")
