"""Ingest: landing files to staged files, audit of those files, then the events table and the quarantine."""

import logging
from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import date
from functools import cached_property

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from expectations.rows import RowRules
from jobs.erasure.entry import Entrance
from jobs.erasure.files import as_delivered
from jobs.errors import Fenced, FileFault, FrameFault
from jobs.fencing import Fence
from jobs.filesystem import FileSystem
from jobs.landing import LandingFile, delivered
from jobs.quality import Measure, count
from jobs.run import Run, Staging
from jobs.spec import Source
from jobs.staging import read_rows, staged
from jobs.stream.way import way_through
from jobs.tables import APPENDS, Table, dimension_table, events_table, quarantine_table

LOG = logging.getLogger(__name__)
TRIES = 20


def ingest(run: Run, days: Sequence[date]) -> None:
    """Bring the files that were delivered for `days` into the tables of the pipeline's sources, one after another.

    Several days are judged together, as one delivery.

    Raises:
        FileFault: a file is missing, unreadable, of another shape, or was delivered twice.
        FrameFault: a dimension has two different rows of one key and one delivery.
        ExpectationsFailed: more rows break an expectation than its `mostly` allows.
        Fenced: another attempt brought in the same files meanwhile, or a key was erased that they may have.
        Of a source that raises nothing was appended; the sources above it in the YAML are in.
    """
    landing = FileSystem(run.lake.spark, run.settings.landing)
    for name, source in run.pipeline.sources.items():
        files = delivered(landing, source, [day for day in days if day >= source.first_day])
        _ingest_source(Target(run, name, source), as_delivered(files, run.settings))


@dataclass(frozen=True)
class Target:
    """Where a source's rows go: the table of those that pass, and the quarantine."""

    run: Run
    name: str
    source: Source

    @cached_property
    def table(self) -> Table:
        """The source's own table."""
        make = events_table if self.source.kind == "events" else dimension_table
        return make(self.name, self.source)

    @cached_property
    def quarantine(self) -> Table:
        """The table of the rows that were rejected."""
        return quarantine_table(self.name)

    def fences(self) -> tuple[Fence, Fence]:
        """Return the right to write next, to the quarantine and to the table."""
        lake = self.run.lake
        return lake.fence(self.quarantine.name, f"ingest/{self.name}"), lake.fence(self.table.name, APPENDS)


@dataclass(frozen=True)
class Audited:
    """Staged rows: those that passed, and those that did not, or None where all did."""

    accepted: DataFrame
    rejected: DataFrame | None = None


def _ingest_source(target: Target, files: list[LandingFile]) -> None:
    run, name = target.run, target.name
    run.lake.create(target.table)
    run.lake.create(target.quarantine)
    fences = target.fences()
    fresh = _not_yet_ingested(target, files)
    if not fresh:
        LOG.info("%s: nothing new in %d files", name, len(files))
        run.record("ingest", [count(f"{name}: files ingested before", len(files))])
        return
    with run.staging(f"ingest-{name}").attempt() as staging:
        audited, measures = _audited(target, fresh, staging)
        # Recorded first: an attempt that is killed after the append finds nothing left to judge.
        run.record("ingest", measures)
        _append(target, audited, fresh, fences)


def _audited(target: Target, files: list[LandingFile], staging: Staging) -> tuple[Audited, list[Measure]]:
    run, name, source = target.run, target.name, target.source
    entrance = Entrance(run.settings, name)
    found = staged(read_rows(run.lake.spark, source, files), source, run.pipeline.entity_key)
    rows = staging.write(entrance.kept(found), "rows")
    counted = _counted(rows)
    if source.kind == "events":
        _refuse_twins(counted)
    judged = run.judged("ingest", rows, source.suite, source=name)
    audited, rejected = Audited(rows), 0
    if any(row.faults for row in counted) or any(one.observed for one in judged if one.rows is not None):
        rules = RowRules.of(rows, run.gate.suite(source.suite))
        marked = staging.write(with_reasons(rows, rules), "marked")
        audited = Audited(marked.where("size(reasons) = 0"), marked.where("size(reasons) > 0"))
        rejected = marked.where("size(reasons) > 0").count()
    accepted = sum(row.rows for row in counted) - rejected
    counts = {"files": len(files), "rows accepted": accepted, "rows rejected": rejected, **entrance.refused}
    LOG.info("%s: %s", name, ", ".join(f"{value} {what}" for what, value in counts.items()))
    return audited, [*[count(f"{name}: {what}", value) for what, value in counts.items()], *map(Measure.of, judged)]


def _append(target: Target, audited: Audited, files: list[LandingFile], fences: tuple[Fence, Fence]) -> None:
    """Append what was rejected, then what passed: the second is what makes the files ingested.

    The fences were taken before it was looked what is there, so of two attempts at the same files one alone gets in;
    one that was killed in between leaves nothing that the next would double. Live events are appended many times in
    the time that this takes, so they are asked to wait.
    """
    with suppress(Fenced):
        return _append_once(target, audited, files, fences)
    # Whatever this pipeline declares: another one may have a stream that shares the source.
    is_live = target.source.kind == "events"
    with way_through(target.run.settings.table(target.table.name)) if is_live else nullcontext():
        erasures = fences[0].erasures
        for _ in range(TRIES):
            fences = target.fences()
            target.run.lake.refuse_erased_since(erasures)  # after the new fences, which know no erasure before them
            if len(_not_yet_ingested(target, files)) < len(files):
                break
            with suppress(Fenced):
                return _append_once(target, audited, files, fences)
    raise Fenced(f"{target.table.name}: others ingested meanwhile; run the task again, it takes what is left")


def _append_once(target: Target, audited: Audited, files: list[LandingFile], fences: tuple[Fence, Fence]) -> None:
    lake, table = target.run.lake, target.table
    if target.source.kind == "dimension":
        _refuse_two_truths(target, audited.accepted)
    if audited.rejected is not None:
        before = lake.read(target.quarantine.name).where(F.col("file_digest").isin([file.digest for file in files]))
        known = [row.file_digest for row in before.select("file_digest").distinct().collect()]
        new = audited.rejected.where(~F.col("file_digest").isin(known))
        lake.append(_for_quarantine(new, target), target.quarantine.name, fences[0])
    lake.deliver(audited.accepted, table, fences[1])


def _not_yet_ingested(target: Target, files: list[LandingFile]) -> list[LandingFile]:
    """Return the files that have no row in the source's table.

    Raises:
        FileFault: a file's name is there with other bytes; or its bytes are, of events, under another name.
    """
    found = _known(target, files)
    digests = {row.source_file: row.file_digest for row in found}
    names = {row.file_digest: row.source_file for row in found} if target.source.kind == "events" else {}
    for file in files:
        was = digests.get(file.name, file.digest)
        if was != file.digest:
            raise FileFault(
                f"{file.name}: the file was changed after it was ingested "
                f"(SHA-256 was {was[:12]}, is {file.digest[:12]}); put the old one back, "
                "and deliver what is new as another file of the same day"
            )
        _refuse_twin(file.name, names.get(file.digest, file.name))
    return [file for file in files if file.name not in digests]


def _known(target: Target, files: list[LandingFile]) -> list[Row]:
    """Return (source_file, file_digest) of what the table has of these files, by name or by content."""
    day, name, digest = (F.col(column) for column in ("day", "source_file", "file_digest"))
    # Names have no statistics; by their day most of the table is skipped.
    named = day.isin(sorted({file.day for file in files})) & name.isin([file.name for file in files])
    there = named | digest.isin([file.digest for file in files])
    return target.run.lake.read(target.table.name).where(there).select(name, digest).distinct().collect()


def _counted(rows: DataFrame) -> list[Row]:
    """Return source_file, file_digest, rows and faults (rows that could not be parsed) of each file that has rows."""
    faults = F.count("parse_fault").alias("faults")
    return rows.groupBy("source_file", "file_digest").agg(F.count("*").alias("rows"), faults).collect()


def _refuse_twins(counted: Iterable[Row]) -> None:
    """Refuse files of events with the same bytes; those that have but a header count nothing twice, and pass."""
    names: dict[str, str] = {}
    for row in sorted(counted):
        _refuse_twin(row.source_file, names.setdefault(row.file_digest, row.source_file))


def _refuse_twin(name: str, other: str) -> None:
    if other != name:
        raise FileFault(f"{name}: the same file was delivered as {other}; remove one of them")


def _refuse_two_truths(target: Target, new: DataFrame) -> None:
    """Refuse rows of a dimension that differ though key and delivery are the same: neither is the later."""
    key, columns = target.run.pipeline.entity_key, list(target.source.columns)
    identity = [key, "valid_from"]
    there = target.run.lake.read(target.table.name).join(new.select(*identity).distinct(), identity, "left_semi")
    content = F.to_json(F.struct(*columns))
    both = new.select(*identity, content.alias("said")).unionByName(there.select(*identity, content.alias("said")))
    for row in both.groupBy(*identity).agg(F.countDistinct("said").alias("n")).where("n > 1").take(1):
        raise FrameFault(f"{row[0]} has {row.n} different rows delivered at {row[1]}; deliver one row for each {key}")


def with_reasons(rows: DataFrame, rules: RowRules) -> DataFrame:
    """Add why each row is rejected: what could not be parsed, and each row-level expectation that it breaks."""
    faults = rules.judged(rows)
    broken = F.filter("faults", lambda fault: ~fault.startswith("parse_fault="))
    return faults.withColumn("reasons", F.concat(_as_array("parse_fault"), broken)).drop("faults")


def _as_array(column: str) -> Column:
    return F.when(F.col(column).isNotNull(), F.array(column)).otherwise(F.array().cast("array<string>"))


def _for_quarantine(rejected: DataFrame, target: Target) -> DataFrame:
    named = rejected if "event_id" in rejected.columns else rejected.withColumn("event_id", F.lit(None).cast("string"))
    return named.withColumn("run_id", F.lit(target.run.run_id)).select(*target.quarantine.names)
