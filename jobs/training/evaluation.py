"""The evaluation on the test period: champion and baselines, over all rows, by slice and by as_of date."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.training.dataset import Period
from jobs.training.metrics import LOSSES, Floats, bins, difference, measure

TRAINED = "champion"  # what reports and metrics call the model that was trained
TERCILES = ("low", "middle", "high")


@dataclass(frozen=True)
class Judged:
    """A period, and the scores (float64, shape (n,)) of each model for its rows; the champion first."""

    period: Period
    scores: Mapping[str, Floats]


def evaluate(judged: Judged) -> dict[str, Any]:
    """Return all that the report says about a period, as JSON values."""
    every = np.ones(len(judged.period.labels), bool)
    return {
        "all": _measured(judged, every),
        "differences": _differences(judged),
        "slices": {name: _by_value(judged, values) for name, values in judged.period.groups.items()},
        "dates": _by_value(judged, judged.period.as_of.astype("datetime64[D]").astype(str)),
        "reliability": {
            name: [vars(one) for one in bins(judged.period.labels, scores)] for name, scores in judged.scores.items()
        },
    }


def describe(period: Period) -> dict[str, Any]:
    """Return what a part of the split consists of."""
    dates = np.unique(period.as_of.astype("datetime64[D]")).astype(str)
    return {
        "first": str(dates[0]),
        "last": str(dates[-1]),
        "dates": len(dates),
        "rows": len(period.labels),
        "entities": len(np.unique(period.entity)),
        "rate": float(period.labels.mean()),
    }


def terciles(values: Floats) -> NDArray[np.str_]:
    """Return the name of each value's third, with its bounds; equal values are in one third, NaN is 'none'."""
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return np.full(len(values), "none")
    edges = np.quantile(known, [0.0, 1 / 3, 2 / 3, 1.0])
    spans = [f"{name}: {low:,.2f} to {high:,.2f}" for name, (low, high) in zip(TERCILES, pairwise(edges), strict=True)]
    names = np.array([*spans, "none"])
    places = np.searchsorted(edges[1:3], values, side="left")
    return np.asarray(names[np.where(np.isnan(values), len(TERCILES), places)])


def _measured(judged: Judged, rows: NDArray[np.bool_]) -> dict[str, Any]:
    labels = judged.period.labels[rows]
    models = {name: measure(labels, scores[rows]) for name, scores in judged.scores.items()}
    mean = float(judged.scores[TRAINED][rows].mean())
    return {"rows": int(rows.sum()), "rate": float(labels.mean()), "mean_score": mean, "models": models}


def _by_value(judged: Judged, values: NDArray[Any]) -> dict[str, Any]:
    named = terciles(values) if np.issubdtype(values.dtype, np.number) else values.astype(str)
    order = {name: place for place, name in enumerate(TERCILES)}
    found = sorted(np.unique(named), key=lambda name: (order.get(name.split(":")[0], len(order)), name))
    return {str(value): _measured(judged, named == value) for value in found}


def _differences(judged: Judged) -> dict[str, Any]:
    """Return by how much the champion's losses are below each baseline's (negative is better), with intervals."""
    labels, entity, champion = judged.period.labels, judged.period.entity, judged.scores[TRAINED]
    return {
        name: {kind: difference(loss(labels, champion), loss(labels, scores), entity) for kind, loss in LOSSES.items()}
        for name, scores in judged.scores.items()
        if name != TRAINED
    }
