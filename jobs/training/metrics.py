"""What a score is worth: discrimination, probability error, calibration and lift, with ties never broken by chance."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

BINS = 10
LIFT_SHARE = 0.1
RESAMPLES = 1_000
SMALLEST = 1e-7
Labels = NDArray[np.int8]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bin:
    """One bin of a reliability curve."""

    score: float
    rate: float
    rows: int


def measure(labels: Labels, scores: Floats) -> dict[str, float | None]:
    """Return the metrics of n scores. AUC, average precision and lift are None where there is only one label.

    - `ece`: expected calibration error over 10 bins of equal counts (Nixon et al. 2019, "Measuring Calibration in Deep
      Learning": adaptive bins, since with a low base rate bins of equal width put nearly all rows into one).
    - `lift_10`: rate among the 10 % with the highest scores over the rate of all.
    """
    two = 0 < labels.sum() < len(labels)
    return {
        "auc": float(roc_auc_score(labels, scores)) if two else None,
        "average_precision": float(average_precision_score(labels, scores)) if two else None,
        "log_loss": float(log_losses(labels, scores).mean()),
        "brier": float(squared_errors(labels, scores).mean()),
        "ece": calibration_error(bins(labels, scores)),
        "lift_10": lift(labels, scores) if two else None,
    }


def bins(labels: Labels, scores: Floats) -> list[Bin]:
    """Return up to 10 bins with about the same number of rows, by score; equal scores are in one bin."""
    edges = np.unique(np.quantile(scores, np.arange(1, BINS) / BINS))
    places = np.searchsorted(edges, scores, side="left")
    masks = (places == place for place in np.unique(places))
    return [Bin(float(scores[mask].mean()), float(labels[mask].mean()), int(mask.sum())) for mask in masks]


def calibration_error(found: list[Bin]) -> float:
    """Return the mean distance of score and rate over bins, weighted by rows."""
    return sum(abs(one.score - one.rate) * one.rows for one in found) / sum(one.rows for one in found)


def lift(labels: Labels, scores: Floats, share: float = LIFT_SHARE) -> float:
    """Return the rate among the `share` with the highest scores over the rate of all.

    Of rows that tie at the cut, the share that fits counts with the tied rows' mean rate.
    """
    wanted = ceil(share * len(scores))
    cut = np.partition(scores, -wanted)[-wanted]
    above, tied = scores > cut, scores == cut
    hits = labels[above].sum() + (wanted - above.sum()) * labels[tied].mean()
    return float(hits / wanted / labels.mean())


def gains(labels: Labels, scores: Floats) -> tuple[Floats, Floats]:
    """Return the cumulative gains curve: share of rows, from the highest score down, and share of label 1 in them."""
    values, places = np.unique(-scores, return_inverse=True)
    rows = np.bincount(places, minlength=len(values))
    hits = np.bincount(places, weights=labels, minlength=len(values))
    reached = np.concatenate([[0.0], np.cumsum(rows) / len(scores)])
    return reached, np.concatenate([[0.0], np.cumsum(hits) / max(labels.sum(), 1)])


def log_losses(labels: Labels, scores: Floats) -> Floats:
    """Return the logarithmic loss of each row, in nats; scores are kept 1e-7 away from 0 and 1."""
    kept = np.clip(scores, SMALLEST, 1 - SMALLEST)
    return -np.where(labels == 1, np.log(kept), np.log1p(-kept))


def squared_errors(labels: Labels, scores: Floats) -> Floats:
    """Return the squared error of each row: the terms of the Brier score."""
    return np.square(scores - labels)


def difference(first: Floats, second: Floats, entity: NDArray[np.int64]) -> dict[str, float]:
    """Return the mean of `first - second` (losses by row) with a 95 % interval, by bootstrap over entities.

    A customer's rows at several as_of dates are not independent, so whole customers are drawn (1,000 times, Poisson
    weights, fixed seed).
    """
    places = np.unique(entity, return_inverse=True)[1]
    sums, counts = np.bincount(places, weights=first - second), np.bincount(places)
    random = np.random.default_rng(0)
    drawn = (random.poisson(1.0, len(sums)) for _ in range(RESAMPLES))
    means = [float(weights @ sums) / max(float(weights @ counts), 1.0) for weights in drawn]
    low, high = np.quantile(means, [0.025, 0.975])
    return {"mean": float((first - second).mean()), "low": float(low), "high": float(high)}


LOSSES: dict[str, Callable[[Labels, Floats], Floats]] = {"log_loss": log_losses, "brier": squared_errors}
