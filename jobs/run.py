"""One run of a pipeline: whose it is, which interval it is for, and what it works on."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from uuid import uuid4

from pyspark.sql import DataFrame

from expectations.gate import Gate
from jobs.lake import Lake
from jobs.quality import Measure, Record
from jobs.spec import Pipeline, Settings
from serving.clock import Clock

CHAMPION = "champion"


def as_of_day(day: date) -> datetime:
    """Return the as_of of the data interval [day, day + 1): its end, in UTC."""
    return datetime.combine(day + timedelta(days=1), time(), UTC)


@dataclass(frozen=True)
class Run:
    """A run for the interval [day, day + 1) of a pipeline."""

    pipeline: Pipeline
    day: date
    run_id: str
    lake: Lake
    settings: Settings
    clock: Clock

    @property
    def as_of(self) -> datetime:
        """The instant that the run looks back from: the end of its interval."""
        return as_of_day(self.day)

    @property
    def partition(self) -> str:
        """The condition that selects this run's rows of a table by as_of_date and arm."""
        return f"as_of_date = DATE'{self.as_of.date()}' AND arm = '{CHAMPION}'"

    @property
    def gate(self) -> Gate:
        """The gate that judges by this pipeline's suites."""
        return Gate(self.settings.suites / self.pipeline.name, Path(self.settings.reports) / "expectations")

    def record(self, step: str, measures: list[Measure]) -> None:
        """Put measures on record in the quality table."""
        Record(self.as_of, step, self.run_id).write(self.lake, self.pipeline.name, measures, self.clock.now())

    def staging(self, step: str) -> "Staging":
        """Return where a step keeps what it has not shown yet."""
        return Staging(self.lake, f"staging/{self.pipeline.name}/{step}/{self.day}")


@dataclass(frozen=True)
class Staging:
    """A folder of files that nobody reads but the attempt that wrote them."""

    lake: Lake
    folder: str

    @contextmanager
    def attempt(self) -> Iterator["Staging"]:
        """Give a fresh folder to one attempt and remove it at the end, with what killed attempts left behind.

        An attempt that was thought dead and is not loses its files with that, and so fails before it commits.
        """
        self.lake.files.delete(self.folder)
        try:
            yield Staging(self.lake, f"{self.folder}/{uuid4().hex}")
        finally:
            self.lake.files.delete(self.folder)

    def write(self, frame: DataFrame, name: str) -> DataFrame:
        """Write a frame, and return it as it was written: what is audited later is what was staged, to the bit."""
        path = self.lake.path(f"{self.folder}/{name}")
        frame.write.mode("overwrite").parquet(path)
        return self.lake.spark.read.schema(frame.schema).parquet(path)
