"""The champion: gradient-boosted trees, calibrated on a later period than the one they learned from."""

from typing import Any

from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from jobs.training.dataset import Period

# Found by hand on the calibration period: shallow trees and large leaves, for the signal is smooth and the noise large.
HYPERPARAMETERS = {"max_iter": 150, "learning_rate": 0.05, "max_leaf_nodes": 6, "l2_regularization": 10.0}
LARGEST_MIN_LEAF, SMALLEST_MIN_LEAF, LEAVES_BY_ROWS = 1_000, 20, 500
SEED = 1


def hyperparameters(rows: int) -> dict[str, float]:
    """Return the settings of the trees for a training period of `rows` rows."""
    leaf = min(LARGEST_MIN_LEAF, max(SMALLEST_MIN_LEAF, rows // LEAVES_BY_ROWS))
    return {**HYPERPARAMETERS, "min_samples_leaf": leaf}


def fit_champion(train: Period, calibration: Period) -> Any:
    """Return a fitted scikit-learn classifier: trees from `train`, their sigmoid calibration from `calibration`.

    Nothing is drawn at random (no early stopping, no subsampling), and one thread sums in one order, so that the same
    rows give the same model. A sigmoid keeps the ranking; isotonic calibration lost average precision to ties.
    """
    trees = HistGradientBoostingClassifier(
        **hyperparameters(len(train.labels)), early_stopping=False, random_state=SEED
    )
    with threadpool_limits(limits=1):
        learned = Pipeline([("trees", trees)]).fit(train.matrix, train.labels)
        calibrated = CalibratedClassifierCV(FrozenEstimator(learned), method="sigmoid", ensemble=False)
        return calibrated.fit(calibration.matrix, calibration.labels)
