"""One run of a pipeline: whose it is, which interval it is for, and what it works on."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from pyspark.sql import DataFrame

from jobs.errors import TakenOver
from jobs.lake import Lake
from jobs.quality import Measure, Record, write
from jobs.spec import Pipeline, Settings
from serving.clock import Clock

if TYPE_CHECKING:
    from expectations.findings import Measured
    from expectations.gate import Gate

CHAMPION = "champion"
MARK = "_attempt"  # in an attempt's folder: who writes there makes a removed folder anew, and not this


def as_of_day(day: date) -> datetime:
    """Return the as_of of the data interval [day, day + 1): its end, in UTC."""
    return datetime.combine(day + timedelta(days=1), time(), UTC)


def partitions(as_ofs: Iterable[date]) -> str:
    """Return the condition that selects the rows of these dates of a table by as_of_date and arm."""
    return f"{of_dates(as_ofs)} AND arm = '{CHAMPION}'"


def of_dates(as_ofs: Iterable[date]) -> str:
    """Return the condition that selects the rows of these dates of a table by as_of_date."""
    days = ", ".join(f"DATE'{as_of}'" for as_of in as_ofs)
    return f"as_of_date IN ({days})"


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
        return partitions([self.as_of.date()])

    @property
    def gate(self) -> "Gate":
        """The gate that judges by this pipeline's suites."""
        from expectations.gate import Gate  # Great Expectations takes seconds to import, and not every job judges

        return Gate(self.settings.suites / self.pipeline.name, Path(self.settings.reports) / "expectations")

    def judged(self, step: str, frame: DataFrame, suite: str, **context: str) -> "list[Measured]":
        """Return what the gate measured of a frame; where it refuses the frame, that is on record.

        Raises:
            ExpectationsFailed, and what else the gate raises.
        """
        from expectations.errors import ExpectationsFailed

        told = {"pipeline": self.pipeline.name, **context, "day": self.day.isoformat()}
        try:
            return self.gate.check(frame, suite, told)
        except ExpectationsFailed as failed:
            self.record(step, [Measure.of(one) for one in failed.measured])
            raise

    def record(self, step: str, measures: list[Measure]) -> None:
        """Put measures on record in the quality table."""
        write(self.lake, self.pipeline.name, [Record(self.as_of, step, self.run_id, measures)], self.clock.now())

    def staging(self, step: str) -> "Staging":
        """Return where a step keeps what it has not shown yet."""
        return Staging(self.lake, f"staging/{self.pipeline.name}/{step}/{self.day}")


@dataclass(frozen=True)
class Dates:
    """Runs of one pipeline, each for a date of its own, that work in one pass; `staging` is for all of them."""

    runs: Sequence[Run]
    staging: "Staging"

    @property
    def any(self) -> Run:
        """One of the runs: pipeline, lake, settings and clock are those of all."""
        return self.runs[0]

    @property
    def as_ofs(self) -> list[date]:
        """The dates, which are the partitions."""
        return [run.as_of.date() for run in self.runs]

    def __str__(self) -> str:
        first, last = min(self.as_ofs), max(self.as_ofs)
        return str(first) if first == last else f"{first} to {last}"

    def judged(self, step: str, frame: DataFrame, suite: str) -> "Mapping[date, list[Measured]]":
        """Return what the gate measured of each date's rows, by their as_of.

        Raises:
            ExpectationsFailed, and what else the gate raises. Of a date that is alone that is on record; of several
            whoever asks tries each by itself.
        """
        if len(self.runs) == 1:
            return {self.any.as_of.date(): self.any.judged(step, frame, suite)}
        from expectations.each import Groups

        name = self.any.pipeline.name
        told = {run.as_of.date(): {"pipeline": name, "day": run.day.isoformat()} for run in self.runs}
        return self.any.gate.check_each(frame, suite, Groups("as_of", told))

    def record(self, step: str, measures: Mapping[date, Sequence[Measure]]) -> None:
        """Put measures on record in the quality table, by the date that they are about."""
        records = [Record(run.as_of, step, run.run_id, measures[run.as_of.date()]) for run in self.runs]
        write(self.any.lake, self.any.pipeline.name, records, self.any.clock.now())


@dataclass(frozen=True)
class Staging:
    """A folder of files that nobody reads but the attempt that wrote them."""

    lake: Lake
    folder: str

    @contextmanager
    def attempt(self) -> Iterator["Staging"]:
        """Give a fresh folder to one attempt and remove it at the end, with what killed attempts left behind.

        Raises:
            TakenOver: another attempt, or an erasure, has removed this one's files before anything was committed.
        """
        files, own = self.lake.files, Staging(self.lake, f"{self.folder}/{uuid4().hex}")
        files.delete(self.folder)
        files.make_folder(f"{own.folder}/{MARK}")
        try:
            yield own
        except Exception as error:
            own._refuse_removed(error)
            raise
        finally:
            files.delete(own.folder)

    def write(self, frame: DataFrame, name: str) -> DataFrame:
        """Write a frame, and return it as it was written: what is audited later is what was staged, to the bit.

        Raises:
            TakenOver: the attempt's folder was removed, and so may be a part of what was written.
        """
        path = self.lake.path(f"{self.folder}/{name}")
        frame.write.mode("overwrite").parquet(path)
        self._refuse_removed()
        return self.lake.spark.read.schema(frame.schema).parquet(path)

    def _refuse_removed(self, cause: Exception | None = None) -> None:
        if not self.lake.files.has(f"{self.folder}/{MARK}"):
            raise TakenOver(
                f"{self.folder.rpartition('/')[0]}: another attempt took over, or a key is erased; this one changed "
                "nothing more. Run the task again"
            ) from cause
