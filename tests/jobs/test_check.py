"""The check: each of ten planted faults is found and named with its column, and good pipelines pass."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.check.cost import Cost
from jobs.check.findings import Finding
from jobs.check.job import Check
from jobs.registry import ModelVersion
from tests.project import Project

NAME = "purchase_propensity"
SQL, YAML = f"jobs/sql/{NAME}", f"dags/pipelines/{NAME}.yaml"
SUITES = f"expectations/suites/{NAME}"
COLUMN = "CAST(spent AS DOUBLE) AS spent_total"
OWN = "FROM events AS x WHERE x.customer_id = history.key"


def check(project: Project, cost: Cost | None = None) -> Check:
    return Check(project.lake, project.settings, project.pipeline(), cost or Cost())


def faults(findings: Iterator[Finding]) -> list[str]:
    return [finding.line for finding in findings if finding.is_fault]


def edited(project: Project, folder: Path, name: str, was: str, now: str) -> Project:
    """Return a copy of the project in which `was` is `now` in one file."""
    copy = project.copied(folder)
    path = copy.root / name
    text = path.read_text("utf-8")
    assert was in text
    path.write_text(text.replace(was, now, 1))
    return copy


def a_sum(condition: str) -> str:
    """Return one more feature: a sum that looks at events of the key by a condition of its own."""
    return f"CAST((SELECT SUM(x.amount) {OWN} AND {condition}) AS DOUBLE) AS planted"


def test_a_good_pipeline_passes(filled: Project, model: ModelVersion) -> None:
    found = list(check(filled).findings())
    assert [each.line for each in found if each.is_fault] == []
    lines = "\n".join(each.line for each in found)
    for said in (
        f"ok    model {NAME}@champion: version {model.version}, digest {model.digest[:12]}",
        "ok    sample: 190 keys of events/transactions",
        "ok    population.sql: keys are unique, and see nothing later than as_of",
        "ok    features.sql: deterministic",
        "ok    features.sql: point-in-time by event time",
        "ok    features.sql: point-in-time by arrival time",
        "ok    features.sql: point-in-time by label",
        "ok    features.sql: fit for the stream",
        "ok    labels.sql: looks at the horizon and no further",
        "ok    stream: the features of ",
    ):
        assert said in lines


FEATURES = f"{SQL}/features.sql"
IN_PERIOD = "x.event_time >= history.as_of AND x.event_time < history.as_of + INTERVAL 60 DAY"
PLANTED = {
    "event time": (
        FEATURES, COLUMN, f"{COLUMN}, {a_sum('x.arrived_at <= history.as_of')}",
        r"column planted changes with events that happen at as_of or later.*\(event time\): key \d{5} as of",
    ),
    "arrival time": (
        FEATURES, COLUMN, f"{COLUMN}, {a_sum('x.event_time < history.as_of')}",
        r"column planted changes with events that arrive after as_of.*\(arrival time\): key \d{5} as of",
    ),
    "label": (
        FEATURES, COLUMN, f"{COLUMN}, {a_sum(IN_PERIOD)}",
        r"column planted changes with events of the label's period.*\(label\): key \d{5} as of",
    ),
    "nondeterministic aggregate": (
        FEATURES, "MAX_BY(gap, day) FILTER (WHERE gap > 0)", "CAST(MAX_BY(amount, day) AS BIGINT)",
        "column gap_last_days: the same rows in another order give other values",
    ),
    "current_date": (
        FEATURES, COLUMN, f"{COLUMN}, CAST(DATEDIFF(CURRENT_DATE(), as_of) AS DOUBLE) AS age",
        r"column age: current_date\(\) is refused: it depends on the clock: use as_of",
    ),
    "wrong type": (
        FEATURES, COLUMN, "CAST(spent AS STRING) AS spent_total",
        "spent_total is string; cast what the model takes to DOUBLE",
    ),
    "unknown column": (FEATURES, "    e.cds,\n", "    e.cd AS cds,\n", r"UNRESOLVED_COLUMN.*`e`\.`cd`"),
    "key not unique": (
        f"{SQL}/population.sql", "SELECT DISTINCT", "SELECT", r"column key is not unique: \d{5} is there \d+ times"
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_named_with_its_column(
    filled: Project, model: ModelVersion, tmp_path: Path, fault: str
) -> None:
    file, was, now, said = PLANTED[fault]
    found = faults(check(edited(filled, tmp_path, file, was, now)).findings())
    assert [line for line in found if re.search(rf"{Path(file).name}: .*{said}", line)], found
