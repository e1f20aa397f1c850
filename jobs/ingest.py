"""Ingest: landing files to staged files, audit of those files, then the events table and the quarantine."""

import hashlib
import logging
from collections.abc import Iterable, Sequence
from datetime import date
from functools import reduce

from pyspark.sql import Column, DataFrame
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
FILE = ("source_file", "file_digest", "day")


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
    _refuse_delivered_twice(rows)
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
    """Return the files whose rows are not in the tables.

    Raises:
        FileFault: a file's bytes are there under another name, or its name with other bytes.
    """
    known = reduce(DataFrame.unionByName, (lake.read(table).select(*FILE) for table in tables))
    digests, names = [file.digest for file in files], [file.name for file in files]
    seen = known.where(F.col("file_digest").isin(digests) | F.col("source_file").isin(names)).distinct().collect()
    by_digest = {row.file_digest: row.source_file for row in seen}
    by_name = {row.source_file: row.file_digest for row in seen}
    for file in files:
        _refuse_other(file, by_digest.get(file.digest, file.name), by_name.get(file.name, file.digest))
    return [file for file in files if file.digest not in by_digest]


def _refuse_other(file: LandingFile, name: str, digest: str) -> None:
    if name != file.name:
        raise FileFault(f"{file.name}: the same file was delivered as {name} and ingested; remove this one")
    if digest != file.digest:
        raise FileFault(
            f"{file.name}: the file was changed after it was ingested "
            f"(SHA-256 was {digest[:12]}, is {file.digest[:12]}); put the old one back, "
            "and deliver what is new as another file of the same day"
        )


def _refuse_delivered_twice(rows: DataFrame) -> None:
    """Refuse the same bytes under two names; files that have but a header are equal, and have no row to count twice."""
    names = rows.groupBy("file_digest").agg(F.array_sort(F.collect_set("source_file")).alias("names"))
    for row in names.where("size(names) > 1").take(1):
        raise FileFault(f"{row.names[1]}: the same file was delivered as {row.names[0]}; remove one of them")


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
