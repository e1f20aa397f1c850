"""What each feature contributed to a score: Shapley values over random orders, by dalex, whatever the model is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from jobs.explain.recorded import Values
from jobs.scoring import ScoringModel

ORDERS = 25  # random orders in which the key's values take the place of a sampled key's
SAMPLED = 200  # keys that a score is compared with
SEED = 0


@dataclass(frozen=True)
class Contributions:
    """Per feature, in parts of the score: they add up to the score less `mean`, that of `sampled` keys.

    `error` is the largest standard error of one of them, for orders are drawn.
    """

    mean: float
    sampled: int
    parts: Mapping[str, float]
    error: float


def contributions(model: ScoringModel, values: Values, sample: Sequence[Values]) -> Contributions:
    """Return what the features of `values` contributed, compared with a sample of the population.

    For each order, the key's values are given to all keys of the sample, feature by feature, and the change of the mean
    score is what that feature contributed (Strumbelj and Kononenko, 2014). NULL is NaN, as the model takes it.
    """
    import dalex  # two seconds, and only where somebody asks why

    names = list(model.features)
    near, far = _frame([values], names), _frame(sample, names)
    with threadpool_limits(limits=1):
        explainer = dalex.Explainer(
            model, far, predict_function=_predict, label="score", model_type="classification", verbose=False
        )
        found = explainer.predict_parts(near, type="shap", B=ORDERS, random_state=SEED, processes=1).result
        mean = float(_predict(model, far).mean())
    is_mean = found["B"] == 0  # of the orders, which dalex counts from 1
    parts = found[is_mean].set_index("variable_name")["contribution"]
    error = found[~is_mean].groupby("variable_name")["contribution"].sem().max()
    return Contributions(mean, len(sample), {name: float(parts[name]) for name in names}, float(error))


def _predict(model: ScoringModel, frame: pd.DataFrame) -> NDArray[np.float64]:
    return model.score(frame.to_numpy(np.float64)).astype(np.float64)


def _frame(rows: Sequence[Values], names: Sequence[str]) -> pd.DataFrame:
    """Return the features as the model takes them: float64, NaN where there is nothing."""
    cells: list[list[Any]] = [[np.nan if row[name] is None else float(row[name]) for name in names] for row in rows]
    return pd.DataFrame(np.array(cells, np.float64).reshape(len(rows), len(names)), columns=list(names))
