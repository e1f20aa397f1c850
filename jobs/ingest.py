"""Ingest: landing files to staged files, audit of those files, then the events table and the quarantine."""

import hashlib
import logging
from collections.abc import Iterable, Sequence
from datetime import date
from functools import reduce

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from expectations.rows import row_faults
from jobs.errors import FileFault, FrameFault
from jobs.filesystem import FileSystem
from jobs.lake import Lake
from jobs.landing import LandingFile, delivered
from jobs.quality import Measure, count
from jobs.run import Run, Staging
from jobs.spec import Source
from jobs.staging import read_rows, staged
from jobs.tables import Table, dimension_table, events_table, quarantine_table

LOG = logging.getLogger(__name__)


def ingest(run: Run, days: Sequence[date]) -> None:
    """Bring the files that were delivered for `days` into the tables of the pipeline's sources.

    Raises:
        FileFault: a file is missing, unreadable, of another shape, or was delivered twice.
        ExpectationsFailed: more rows break an expectation than its `mostly` allows. Nothing was appended then.
    """
    landing = FileSystem(run.lake.spark, run.settings.landing)
    measures: list[Measure] = []
    for name, source in run.pipeline.sources.items():
        files = delivered(landing, source, [day for day in days if day >= source.first_day])
        measures += _ingest_source(run, name, files)
    run.record("ingest", measures)


def _ingest_source(run: Run, name: str, files: list[LandingFile]) -> list[Measure]:
    source = run.pipeline.sources[name]
    table = events_table(name, source) if source.kind == "events" else dimension_table(name, source)
    run.lake.create(table)
    run.lake.create(quarantine_table(name))
    fresh = _not_yet_ingested(run.lake, (table.name, f"quarantine/{name}"), files)
    if not fresh:
        LOG.info("%s: all %d files were ingested before; nothing to do", name, len(files))
        return [count(f"{name}: files ingested before", len(files))]
    with run.staging(f"ingest-{name}").attempt() as staging:
        return _audit_and_append(run, table, fresh, staging)


def _audit_and_append(run: Run, table: Table, files: list[LandingFile], staging: Staging) -> list[Measure]:
    name = table.name.split("/")[1]
    source = run.pipeline.sources[name]
    rows = staging.write(staged(read_rows(run.lake.spark, source, files), source), "rows")
    if source.kind == "events":
        _refuse_delivered_twice(run.lake, (table.name, f"quarantine/{name}"), rows)
    context = {"pipeline": run.pipeline.name, "source": name, "day": run.day.isoformat()}
    judged = run.gate.check(rows, source.suite, context)
    marked = staging.write(_with_reasons(run, rows, source), "marked")
    accepted, rejected = marked.where("size(reasons) = 0"), marked.where("size(reasons) > 0")
    once = f"ingest/{name}/{_digest_of(files)}"
    run.lake.append_once(_quarantined(rejected, run, name), f"quarantine/{name}", once)
    run.lake.append_once(_kept(run, accepted, table, source), table.name, once)
    counts = {"files": len(files), "rows accepted": accepted.count(), "rows rejected": rejected.count()}
    LOG.info("%s: %s", name, ", ".join(f"{value} {what}" for what, value in counts.items()))
    return [*[count(f"{name}: {what}", value) for what, value in counts.items()], *map(Measure.of, judged)]


def _not_yet_ingested(lake: Lake, tables: Iterable[str], files: list[LandingFile]) -> list[LandingFile]:
    """Return the files that have no row in the tables.

    Raises:
        FileFault: a file's name is there with other bytes.
    """
    names = [file.name for file in files]
    seen = {row.source_file: row.file_digest for row in _files_in(lake, tables, F.col("source_file").isin(names))}
    for file in files:
        was = seen.get(file.name, file.digest)
        if was != file.digest:
            raise FileFault(
                f"{file.name}: the file was changed after it was ingested "
                f"(SHA-256 was {was[:12]}, is {file.digest[:12]}); put the old one back, "
                "and deliver what is new as another file of the same day"
            )
    return [file for file in files if file.name not in seen]


def _files_in(lake: Lake, tables: Iterable[str], condition: Column) -> list[Row]:
    rows = reduce(DataFrame.unionByName, (lake.read(table).select("source_file", "file_digest") for table in tables))
    return rows.where(condition).distinct().collect()


def _refuse_delivered_twice(lake: Lake, tables: Iterable[str], rows: DataFrame) -> None:
    """Refuse events that came before in the same bytes under another name, now or earlier.

    It looks at rows: files that have but a header are equal and count nothing twice. Nor do dimensions, whose
    snapshots are equal as long as nothing changes.
    """
    new = {row.source_file: row.file_digest for row in rows.select("source_file", "file_digest").distinct().collect()}
    by_digest: dict[str, str] = {}
    known = _files_in(lake, tables, F.col("file_digest").isin(list(new.values())))
    for name, digest in [*((row.source_file, row.file_digest) for row in known), *sorted(new.items())]:
        other = by_digest.setdefault(digest, name)
        if other != name:
            raise FileFault(f"{name}: the same file was delivered as {other}; remove one of them")


def _with_reasons(run: Run, rows: DataFrame, source: Source) -> DataFrame:
    """Add why each row is rejected: what could not be parsed, and each row-level expectation that it breaks."""
    faults = row_faults(rows, run.gate.suite(source.suite))
    broken = F.filter("faults", lambda fault: ~fault.startswith("parse_fault="))
    return faults.withColumn("reasons", F.concat(_as_array("parse_fault"), broken)).drop("faults")


def _as_array(column: str) -> Column:
    return F.when(F.col(column).isNotNull(), F.array(column)).otherwise(F.array().cast("array<string>"))


def _quarantined(rejected: DataFrame, run: Run, name: str) -> DataFrame:
    named = rejected if "event_id" in rejected.columns else rejected.withColumn("event_id", F.lit(None).cast("string"))
    return named.withColumn("run_id", F.lit(run.run_id)).select(*quarantine_table(name).names)


def _kept(run: Run, accepted: DataFrame, table: Table, source: Source) -> DataFrame:
    if source.kind == "events":
        return accepted.select(*table.names)
    return _changes(run.lake.read(table.name), accepted.select(*table.names), run.pipeline.entity_key, source)


def _changes(known: DataFrame, new: DataFrame, key: str, source: Source) -> DataFrame:
    """Return the rows of a dimension that say something new of their key: a repeated snapshot adds nothing.

    Raises:
        FrameFault: a key has two rows of one delivery, of which neither is the later.
    """
    for row in new.groupBy(key, "valid_from").count().where("count > 1").take(1):
        raise FrameFault(f"{row[0]} has {row['count']} rows delivered at {row[1]}; deliver one row for each {key}")
    content = F.to_json(F.struct(*[F.col(name) for name in source.columns]))
    both = known.withColumn("new", F.lit(0)).unionByName(new.withColumn("new", F.lit(1))).withColumn("content", content)
    before = F.expr(f"lag(content) OVER (PARTITION BY {key} ORDER BY valid_from, new)")
    changed = both.withColumn("before", before).where("new = 1 AND NOT (content <=> before)")
    return changed.select(*new.columns)


def _digest_of(files: list[LandingFile]) -> str:
    """Return what identifies this set of files: its first day and a digest over the days and the files' bytes."""
    text = "\n".join(sorted(f"{file.day} {file.name} {file.digest}" for file in files))
    return f"{min(file.day for file in files)}/{hashlib.sha256(text.encode()).hexdigest()}"
