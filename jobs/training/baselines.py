"""What a champion must beat: a constant by recency band, and logistic regression on recency and frequency."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from jobs.training.dataset import Period

# Days since the last purchase: upper bounds of the bands that a marketer would draw by hand.
BANDS = np.array([7.0, 14.0, 30.0, 60.0, 90.0, 120.0, 180.0, 270.0, 365.0])


class Baseline(Protocol):
    """Something simple that scores a period."""

    def score(self, period: Period) -> NDArray[np.float64]:
        """Return the probability of the label 1 for each row, shape (n,)."""


@dataclass(frozen=True)
class RecencyBands:
    """The share of label 1 in the row's band of recency."""

    rates: NDArray[np.float64]

    def score(self, period: Period) -> NDArray[np.float64]:
        """Return the rate of each row's band, shape (n,)."""
        return self.rates[_band(period)]


@dataclass(frozen=True)
class RecencyFrequency:
    """Logistic regression on log(1 + recency in days) and log(1 + frequency)."""

    model: Any

    def score(self, period: Period) -> NDArray[np.float64]:
        """Return the probability of the label 1 for each row, shape (n,)."""
        return np.asarray(self.model.predict_proba(_logs(period))[:, 1], np.float64)


def fit_baselines(period: Period) -> dict[str, Baseline]:
    """Return both baselines by name, learned from all that the champion may know: training and calibration."""
    overall = float(period.labels.mean())
    bands = _band(period)
    counts = np.bincount(bands, minlength=len(BANDS) + 1)
    hits = np.bincount(bands, weights=period.labels, minlength=len(BANDS) + 1)
    # An empty band takes the rate of the one before it; one row of the overall rate keeps each off 0 and 1.
    seen = np.maximum.accumulate(np.where(counts > 0, np.arange(len(counts)), 0))
    rates = ((hits + overall) / (counts + 1))[seen]
    with threadpool_limits(limits=1):
        model = LogisticRegression().fit(_logs(period), period.labels)
    return {"recency bands": RecencyBands(rates), "recency and frequency": RecencyFrequency(model)}


def _band(period: Period) -> NDArray[np.intp]:
    return np.searchsorted(BANDS, period.recency, side="left")


def _logs(period: Period) -> NDArray[np.float64]:
    return np.column_stack([np.log1p(np.maximum(period.recency, 0)), np.log1p(np.maximum(period.frequency, 0))])
