"""What the scores of a date were made of, as their rows say; read without Spark."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

import pyarrow.compute as pc
from deltalake import DeltaTable

from jobs.registry import ModelVersion
from jobs.run import CHAMPION
from jobs.spec import Pipeline, Settings

MODEL = ["model_name", "model_version", "model_digest"]
COLUMNS = [*MODEL, "events_version", "dimension_versions"]


@dataclass(frozen=True)
class Recorded:
    """The model that scored a date, and the versions of the tables that were read, by the tables' names."""

    model: ModelVersion
    versions: dict[str, int]


def recorded(settings: Settings, pipeline: Pipeline, as_ofs: Iterable[date]) -> dict[date, Recorded]:
    """Return what is recorded of each of the dates that has scores."""
    path = settings.table(f"scores/{pipeline.name}")
    if not DeltaTable.is_deltatable(path):
        return {}
    scores = DeltaTable(path).to_pyarrow_dataset()
    found = {}
    for as_of in as_ofs:
        of_date = (pc.field("as_of_date") == as_of) & (pc.field("arm") == CHAMPION)
        # Without threads, as in jobs/summary.py. All rows of a partition say the same.
        for row in scores.head(1, columns=COLUMNS, filter=of_date, use_threads=False).to_pylist():
            found[as_of] = _recorded(pipeline, row)
    return found


def _recorded(pipeline: Pipeline, row: dict[str, object]) -> Recorded:
    name, version, digest = (str(row[column]) for column in MODEL)
    dimensions: object = row["dimension_versions"] or []
    versions = {f"dimensions/{each}": int(number) for each, number in dict(dimensions).items()}  # type: ignore[call-overload]  # reason: Arrow's map, as pairs
    events = {f"events/{pipeline.events[0]}": row["events_version"]}
    return Recorded(ModelVersion(name, version, digest, ()), {**events, **versions})  # type: ignore[dict-item]  # reason: a BIGINT
