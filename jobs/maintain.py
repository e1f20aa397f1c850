"""Keeps a pipeline's tables in few files: what arrives in small appends is put together, for all who read it later."""

import logging
import time
from collections.abc import Iterator

from jobs.lake import Lake
from jobs.spec import Pipeline

LOG = logging.getLogger(__name__)
MB = 2**20
# Of what is replaced or added by date, a compaction joins files of a date alone: those that are one already stay so.
OWN = (
    "scores_live", "quarantine_live", "scores", "features", "scores_superseded", "features_superseded", "quality",
    "publications",
)  # fmt: skip
# Files from 64 MB on stay as they are, or each compaction would write again what earlier ones wrote.
SIZES = {
    "spark.databricks.delta.optimize.minFileSize": str(64 * MB),
    "spark.databricks.delta.optimize.maxFileSize": str(256 * MB),
}


def maintain(lake: Lake, pipeline: Pipeline) -> list[str]:
    """Compact the tables of a pipeline that grow, remove files that none of their versions has, and tell of each.

    Readers, writers and streams go on meanwhile: rows and their numbers of append stay what they are. A replay reads
    rows alone, so that no score is explained worse afterwards.

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
    yield from (f"{kind}/{pipeline.name}" for kind in OWN)


def _compacted(lake: Lake, table: str) -> str:
    began, before = time.monotonic(), lake.file_count(table)
    lake.compact(table)
    lake.vacuum(table)
    line = f"{table}: {before} files before, {lake.file_count(table)} now; {time.monotonic() - began:.1f} s"
    LOG.info("%s", line)
    return line
