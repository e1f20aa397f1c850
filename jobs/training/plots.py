"""The report's plots, as SVG text that goes into the page."""

from io import StringIO
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jobs.training.evaluation import TRAINED, Judged
from jobs.training.metrics import bins, gains

COLOURS = ("#0b6e4f", "#c97b2a", "#5b6c9e")
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "scoreline",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9aa5b1",
    "axes.labelcolor": "#3e4c59",
    "axes.grid": True,
    "grid.color": "#e4e7eb",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "xtick.color": "#52606d",
    "ytick.color": "#52606d",
    "legend.frameon": False,
    "lines.linewidth": 2,
}
WIDE, SQUARE = (11.0, 3.6), (5.2, 4.4)


def draw(judged: Judged, evaluation: dict[str, Any]) -> dict[str, str]:
    """Return each plot's SVG by name: reliability, gains, distribution, dates."""
    with mpl.rc_context(STYLE):
        return {
            "reliability": _reliability(judged),
            "gains": _gains(judged),
            "distribution": _distribution(judged),
            "dates": _dates(evaluation["dates"]),
        }


def _colours(judged: Judged) -> dict[str, str]:
    return dict(zip(judged.scores, COLOURS, strict=False))


def _svg(figure: Figure) -> str:
    target = StringIO()
    figure.savefig(target, format="svg", transparent=True, metadata={"Date": None}, bbox_inches="tight")
    text = target.getvalue()
    return text[text.index("<svg") :]


def _reliability(judged: Judged) -> str:
    figure = Figure(figsize=SQUARE)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    most = 0.0
    for name, scores in judged.scores.items():
        found = bins(judged.period.labels, scores)
        points = [one.score for one in found], [one.rate for one in found]
        above.plot(*points, "o-", color=_colours(judged)[name], label=name, ms=4.5, lw=1.4)
        most = max(most, *points[0], *points[1])
    above.plot([0, most], [0, most], color="#9aa5b1", lw=1, ls="--", label="perfect")
    above.set_ylabel("share that came true")
    above.legend(loc="upper left")
    _counts(below, judged, most)
    return _svg(figure)


def _counts(axes: Axes, judged: Judged, most: float) -> None:
    axes.hist(judged.scores[TRAINED], bins=np.linspace(0, most, 41).tolist(), color=COLOURS[0], alpha=0.75)
    axes.set_yscale("log")
    axes.set_ylabel("rows")
    axes.set_xlabel("score")


def _gains(judged: Judged) -> str:
    figure = Figure(figsize=SQUARE)
    axes = figure.subplots()
    for name, scores in judged.scores.items():
        rows, hits = gains(judged.period.labels, scores)
        axes.plot(100 * rows, 100 * hits, color=_colours(judged)[name], label=name, lw=2 if name == TRAINED else 1.3)
    axes.plot([0, 100], [0, 100], color="#9aa5b1", lw=1, ls="--", label="no model")
    axes.set_xlabel("rows taken, highest scores first, %")
    axes.set_ylabel("of all that came true, %")
    axes.legend(loc="lower right")
    return _svg(figure)


def _distribution(judged: Judged) -> str:
    figure = Figure(figsize=WIDE)
    axes = figure.subplots()
    scores, labels = judged.scores[TRAINED], judged.period.labels
    edges = np.linspace(0, float(scores.max()), 61).tolist()
    axes.hist(scores[labels == 0], bins=edges, color="#9aa5b1", alpha=0.6, label="label 0")
    axes.hist(scores[labels == 1], bins=edges, color=COLOURS[0], alpha=0.75, label="label 1")
    axes.set_yscale("log")
    axes.set_xlabel("score")
    axes.set_ylabel("rows (logarithmic)")
    axes.legend(loc="upper right")
    return _svg(figure)


def _dates(dates: dict[str, Any]) -> str:
    figure = Figure(figsize=WIDE)
    for axes, metric, title in zip(
        figure.subplots(1, 3), ("auc", "log_loss", None), ("AUC", "log loss", "mean score and what came"), strict=True
    ):
        _over_dates(axes, dates, metric)
        axes.set_title(title, loc="left", fontsize=10, color="#3e4c59")
    figure.tight_layout()
    return _svg(figure)


def _over_dates(axes: Axes, dates: dict[str, Any], metric: str | None) -> None:
    places = range(len(dates))
    axes.set_xticks(places, [date[5:] for date in dates], rotation=40)
    if metric is None:
        axes.plot(places, [date["mean_score"] for date in dates.values()], "o-", color=COLOURS[0], ms=4, label="score")
        axes.plot(places, [date["rate"] for date in dates.values()], "s--", color="#3e4c59", ms=4, label="came true")
        axes.set_ylim(bottom=0)
        axes.legend(loc="best")
        return
    names = list(next(iter(dates.values()))["models"])
    for name, colour in zip(names, COLOURS, strict=False):
        values = [date["models"][name][metric] for date in dates.values()]
        axes.plot(places, [np.nan if value is None else value for value in values], "o-", color=colour, ms=4)
