"""Keeps a pipeline's tables in few files: what arrives in small appends is put together, for all who read it later."""

import logging
import time
from collections.abc import Iterator

from jobs.lake import Lake
from jobs.spec import Pipeline

LOG = logging.getLogger(__name__)
MB = 2**20
# Files from 64 MB on stay as they are, or each compaction would write again what earlier ones wrote.
SIZES = {
    "spark.databricks.delta.optimize.minFileSize": str(64 * MB),
    "spark.databricks.delta.optimize.maxFileSize": str(256 * MB),
}


def maintain(lake: Lake, pipeline: Pipeline) -> list[str]:
    """Compact the tables of a pipeline that grow by small appends, and return a line for each.

    Readers, writers and streams go on meanwhile: rows and their numbers of append stay what they are.

    Raises:
        Fenced: another compaction of the same table was faster; what was compacted before stays so.
    """
    for name, value in SIZES.items():
        lake.spark.conf.set(name, value)
    return [_compacted(lake, table) for table in _tables(pipeline) if lake.has(table)]


def _tables(pipeline: Pipeline) -> Iterator[str]:
    for name, source in pipeline.sources.items():
        yield f"{'events' if source.kind == 'events' else 'dimensions'}/{name}"
        yield f"quarantine/{name}"
    yield f"scores_live/{pipeline.name}"
    yield f"quarantine_live/{pipeline.name}"


def _compacted(lake: Lake, table: str) -> str:
    began, before = time.monotonic(), lake.file_count(table)
    lake.compact(table)
    lake.vacuum(table)
    line = f"{table}: {before} files before, {lake.file_count(table)} now; {time.monotonic() - began:.1f} s"
    LOG.info("%s", line)
    return line
