"""What a run did, in words: read from the tables, without Spark."""

from datetime import UTC, date, datetime, time, timedelta

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from jobs.errors import DataFault
from jobs.spec import Pipeline, Settings

STEPS = ("ingest", "score", "publish")


def summarise(settings: Settings, pipeline: Pipeline, day: date, run_id: str) -> str:
    """Return a line for each step of the run: what it counted, and how many expectations held.

    Raises:
        DataFault: a step left no record.
    """
    rows = _measures(settings, pipeline, day, run_id)
    lines = [f"{pipeline.name} {day}, run {run_id}"]
    for step in STEPS:
        mine = [row for row in rows if row["step"] == step]
        if not mine:
            raise DataFault(
                f"{pipeline.name} {day}: {step} left no record of run {run_id}; clear that task to run it again, "
                f"or run `scoreline {step} {pipeline.name} --day {day} --run-id {run_id}`"
            )
        lines.append(f"  {step}: {_in_words(_newest(mine))}")
    return "\n".join(lines)


def _measures(settings: Settings, pipeline: Pipeline, day: date, run_id: str) -> list[dict[str, object]]:
    name = f"quality/{pipeline.name}"
    try:
        table = DeltaTable(settings.table(name)).to_pyarrow_dataset()
    except TableNotFoundError:
        raise DataFault(
            f"{name} does not exist, for nothing was measured yet: run `scoreline ingest {pipeline.name} --day {day}`, "
            "then score and publish"
        ) from None
    as_of = pa.scalar(datetime.combine(day + timedelta(days=1), time(), UTC), pa.timestamp("us", tz="UTC"))
    mine = (pc.field("run_id") == run_id) & (pc.field("as_of") == as_of)
    # Without threads: Arrow's, over a file system of Python's, aborted one process in three as it ended.
    found: pa.Table = table.to_table(filter=mine, use_threads=False)
    return list(found.to_pylist())


def _newest(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """Return the measures of the step's last attempt: a task that was run again measured again."""
    last = max(str(row["measured_at"]) for row in rows)
    return [row for row in rows if str(row["measured_at"]) == last]


def _in_words(rows: list[dict[str, object]]) -> str:
    judged = [row for row in rows if row["suite"]]
    counts = [f"{row['metric']} {row['observed']}" for row in rows if not row["suite"]]
    held = sum(bool(row["success"]) for row in judged)
    verdict = [f"{held} of {len(judged)} expectations held"] if judged else []
    return ", ".join([*counts, *verdict])
