"""The evaluation report: a JSON file for programs, and one page, complete in itself, for people."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

METRICS = {
    "auc": "AUC",
    "average_precision": "average precision",
    "log_loss": "log loss",
    "brier": "Brier score",
    "ece": "calibration error",
    "lift_10": "lift at 10 %",
}
LOWER_IS_BETTER = ("log_loss", "brier", "ece")


def write_report(report: Mapping[str, Any], plots: Mapping[str, str], folder: Path) -> Path:
    """Write report.json and report.html into `folder` and return the page's path.

    `plots` are SVG texts by name; they are put into the page, which loads nothing from anywhere.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    page = folder / "report.html"
    page.write_text(render(report, plots), "utf-8")
    return page


def render(report: Mapping[str, Any], plots: Mapping[str, str]) -> str:
    """Return the page's HTML."""
    environment = Environment(
        loader=PackageLoader("jobs.training", "."), undefined=StrictUndefined, autoescape=select_autoescape(["j2"])
    )
    environment.filters["figure"] = _figure
    environment.globals.update(METRICS=METRICS, best=_best)
    drawn = {name: Markup(svg) for name, svg in plots.items()}  # noqa: S704  reason: SVG that plots.py drew, no input
    return environment.get_template("page.html.j2").render(report=report, plots=drawn)


def flat(metrics: Mapping[str, Mapping[str, float | None]]) -> dict[str, float]:
    """Return the metrics of each model under one name each, as MLflow wants them."""
    return {
        f"{model.replace(' ', '_')}.{name}": value
        for model, values in metrics.items()
        for name, value in values.items()
        if value is not None
    }


def _figure(value: float | None, digits: int = 4) -> str:
    return "n/a" if value is None else f"{value:,.{digits}f}"


def _best(models: Mapping[str, Mapping[str, float | None]], metric: str) -> list[str]:
    """Return the models that are best by a metric, as the page shows it."""
    values = {name: round(found[metric] or 0.0, 4) for name, found in models.items() if found[metric] is not None}
    if not values:
        return []
    top = min(values.values()) if metric in LOWER_IS_BETTER else max(values.values())
    return [name for name, value in values.items() if value == top]
