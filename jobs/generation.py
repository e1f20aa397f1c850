"""A generation's blocks, written to Redis and read back by the executors; nothing passes through the driver."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import TaskContext
from pyspark.errors import PythonException
from pyspark.sql import DataFrame, Row

from serving import errors
from serving.blocks import Tally, audit, pack_buckets, tally
from serving.errors import HashCollision, ServingError
from serving.layout import Layout
from serving.store import Store

ROWS_A_TASK = 1_000_000  # 12 bytes each in the Python worker: what one task holds at once
TALLY = "rows BIGINT, checksum STRING, collided BOOLEAN"


@dataclass(frozen=True)
class Generation:
    """Where a generation's blocks are: the Redis, the pipeline, the token and the layout."""

    redis_url: str
    pipeline: str
    token: int
    layout: Layout

    def buckets_of(self, task: int, tasks: int) -> range:
        """Return the buckets of one task of `tasks`: those with bucket * tasks // buckets == task."""
        buckets = self.layout.buckets
        return range(-(-task * buckets // tasks), -(-(task + 1) * buckets // tasks))


def write(scores: DataFrame, generation: Generation, rows: int) -> None:
    """Write the blocks of `scores`: `rows` rows of key (string) and score (float).

    Raises:
        HashCollision: two keys have one hash under this salt; nothing is live, another salt will do.
        StoreUnavailable, StoreRefused: Redis does not answer or refuses.
    """
    buckets, cores = generation.layout.buckets, scores.sparkSession.sparkContext.defaultParallelism
    tasks = max(1, min(buckets, max(cores, rows // ROWS_A_TASK)))
    hashed = hashes(scores, generation.layout)
    owner = f"CAST({generation.layout.bucket_sql('hash')} * {tasks}L div {buckets}L AS INT)"
    spread = (
        hashed.selectExpr("hash", "score", f"{owner} AS task").repartitionById(tasks, "task").select("hash", "score")
    )
    if any(row.collided for row in _collected(spread.mapInArrow(partial(_write_task, generation, tasks), TALLY))):
        raise HashCollision(f"two keys of {generation.pipeline} have one hash under salt {generation.layout.salt}")


def expected(scores: DataFrame, layout: Layout) -> Tally:
    """Return the tally of a table's scores under a layout's hash, which blocks read back must have."""
    return _total(_collected(hashes(scores, layout).mapInArrow(_tally_task, TALLY)))


def read_back(spread: DataFrame, generation: Generation) -> Tally:
    """Return the tally of all blocks as Redis holds them; `spread` (id BIGINT) has each bucket once.

    Raises:
        TornGeneration, BlockCorrupt: a block is missing or no reader could rely on it.
    """
    return _total(_collected(spread.mapInArrow(partial(_read_task, generation), TALLY)))


def hashes(scores: DataFrame, layout: Layout) -> DataFrame:
    """Return (hash BIGINT, score FLOAT) of (key, score) under the layout's salt."""
    return scores.selectExpr(f"{layout.hash_sql('key')} AS hash", "score")


def _collected(frame: DataFrame) -> list[Row]:
    """Collect a row of each task; what a task raised of our own errors is raised again, without Spark's wrapping."""
    try:
        return frame.collect()
    except PythonException as error:
        found = re.findall(r"serving\.errors\.(\w+): (.+)", str(error))
        if not found:
            raise
        name, message = found[-1]
    kind: type[ServingError] = getattr(errors, name)
    raise kind(message)


def _write_task(generation: Generation, tasks: int, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    task = _task()
    hashed, scores = _sorted(batches)
    layout, buckets = generation.layout, generation.buckets_of(task, tasks)
    try:
        blocks = pack_buckets(layout, generation.token, buckets, hashed, [scores])
        with Store(generation.redis_url) as store:
            store.write_blocks(generation.pipeline, generation.token, blocks)
    except HashCollision:
        yield _row(Tally(), collided=True)
        return
    yield _row(tally(hashed, [scores]))


def _tally_task(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    total = Tally()
    for batch in batches:
        total += tally(*_columns(batch))
    yield _row(total)


def _read_task(generation: Generation, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    layout, token, total = generation.layout, generation.token, Tally()
    with Store(generation.redis_url) as store:
        for batch in batches:
            buckets = batch.column(0).to_pylist()
            for bucket, block in store.read_blocks(generation.pipeline, token, buckets):
                total += audit(layout, token, bucket, block)
    yield _row(total)


def _sorted(batches: Iterator[pa.RecordBatch]) -> tuple[Any, Any]:
    """Return all rows of a task in the order of their unsigned hashes, which is the order of their buckets."""
    parts = [_columns(batch) for batch in batches]
    hashed = np.concatenate([part[0] for part in parts]) if parts else np.empty(0, np.uint64)
    scores = np.concatenate([part[1][0] for part in parts]) if parts else np.empty(0, np.float32)
    order = np.argsort(hashed, kind="stable")
    return hashed[order], scores[order]


def _columns(batch: pa.RecordBatch) -> tuple[Any, list[Any]]:
    hashed = batch.column(0).to_numpy(zero_copy_only=False).view(np.uint64)
    return hashed, [batch.column(1).to_numpy(zero_copy_only=False)]


def _row(found: Tally, *, collided: bool = False) -> pa.RecordBatch:
    values = [pa.array([found.rows], pa.int64()), pa.array([str(found.checksum)]), pa.array([collided])]
    return pa.RecordBatch.from_arrays(values, ["rows", "checksum", "collided"])


def _total(rows: list[Any]) -> Tally:
    return sum((Tally(row.rows, int(row.checksum)) for row in rows), Tally())


def _task() -> int:
    context = TaskContext.get()
    if context is None:
        raise RuntimeError("blocks are written by Spark tasks only")
    return context.partitionId()
