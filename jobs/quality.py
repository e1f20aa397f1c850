"""What was measured and judged, on record in the quality table."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from jobs.lake import Lake
from jobs.tables import quality_table

if TYPE_CHECKING:
    from expectations.findings import Measured


@dataclass(frozen=True)
class Measure:
    """One measurement: an expectation of a suite, or a plain count (then `suite` is empty)."""

    suite: str
    metric: str
    column: str
    success: bool
    observed: str

    @classmethod
    def of(cls, judged: "Measured") -> "Measure":
        """Return the measure of an expectation that the gate judged."""
        observed = "" if judged.observed is None else f"{judged.observed:.15g}"
        of_rows = "" if judged.rows is None else f" of {judged.rows} rows"
        return cls(
            judged.suite, f"{judged.expectation}({judged.expected})", judged.column, judged.success, observed + of_rows
        )


def count(metric: str, rows: int) -> Measure:
    """Return the measure of a plain count, which is neither good nor bad."""
    return Measure("", metric, "", success=True, observed=str(rows))


@dataclass(frozen=True)
class Record:
    """What a step of a run measured about the interval that ends at `as_of`."""

    as_of: datetime
    step: str
    run_id: str
    measures: Sequence[Measure]


def write(lake: Lake, pipeline: str, records: Iterable[Record], now: datetime) -> None:
    """Append the measures of all records to the pipeline's quality table, at once."""
    table = quality_table(pipeline)
    lake.create(table)
    rows = [(one.as_of, one.step, *astuple(measure), one.run_id, now) for one in records for measure in one.measures]
    frame = lake.spark.createDataFrame(rows, lake.read(table.name).schema)
    frame.coalesce(1).write.format("delta").mode("append").save(lake.path(table.name))
