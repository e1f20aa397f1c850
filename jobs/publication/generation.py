"""A generation's blocks, written to Redis and read back by the executors; nothing passes through the driver."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import TaskContext
from pyspark.errors import PythonException
from pyspark.sql import DataFrame, Row

from serving import errors
from serving.blocks import Tally, audit, buckets_of, pack_buckets, tally
from serving.errors import HashCollision, ServingError
from serving.layout import Layout
from serving.store import BATCH, Store
from serving.store import batches as in_batches

ROWS_A_TASK = 1_000_000  # 12 bytes each in the Python worker: what one task holds at once, before and after the shuffle
EXAMPLES = 5  # buckets that a comparison names
TALLY = "rows BIGINT, checksum STRING"
WRITTEN = "fault STRING"
CHUNKS = "task INT, chunk BINARY"
COMPARISON = "blocks BIGINT, lacking BIGINT, differing BIGINT, examples ARRAY<BIGINT>"
REPAIRED = "blocks BIGINT"


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


@dataclass(frozen=True)
class Comparison:
    """How many blocks were compared, are missing in Redis, and differ there; and some such buckets."""

    blocks: int = 0
    lacking: int = 0
    differing: int = 0
    examples: Sequence[int] = ()

    @property
    def wrong(self) -> int:
        """How many are not as they must be."""
        return self.lacking + self.differing

    def __add__(self, other: "Comparison") -> "Comparison":
        return Comparison(
            self.blocks + other.blocks,
            self.lacking + other.lacking,
            self.differing + other.differing,
            [*self.examples, *other.examples][:EXAMPLES],
        )


def write(scores: DataFrame, generation: Generation, rows: int) -> None:
    """Write the blocks of `scores`: `rows` rows of key (string) and score (float).

    What befalls one task is told when all have ended: of a task that failed Spark leaves the others behind, at work on
    blocks that the caller removes.

    Raises:
        HashCollision: two keys have one hash under this salt; nothing is live, another salt will do.
        StoreUnavailable, StoreRefused: Redis does not answer or refuses.
    """
    spread, tasks = _by_task(scores, generation, rows)
    written = _collected(spread.mapInArrow(partial(_write_task, generation, tasks), WRITTEN))
    faults = [_fault(row.fault) for row in written if row.fault]
    if faults:
        raise min(faults, key=lambda fault: isinstance(fault, HashCollision))  # another salt mends no Redis


def compare(scores: DataFrame, generation: Generation, rows: int) -> Comparison:
    """Compare each block in Redis with what `scores`, the rows that the generation was made of, say it must be."""
    spread, tasks = _by_task(scores, generation, rows)
    found = _collected(spread.mapInArrow(partial(_compare_task, generation, tasks), COMPARISON))
    return sum((Comparison(*row) for row in found), Comparison())


def repair(scores: DataFrame, generation: Generation, rows: int) -> int:
    """Write the blocks that are missing or differ once more, while the head names the generation; return how many."""
    spread, tasks = _by_task(scores, generation, rows)
    found = _collected(spread.mapInArrow(partial(_repair_task, generation, tasks), REPAIRED))
    return sum(int(row.blocks) for row in found)


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


def _by_task(scores: DataFrame, generation: Generation, rows: int) -> tuple[DataFrame, int]:
    """Return chunks of rows, each brought to the task that has their buckets, and how many tasks there are.

    A chunk is a value of tens of thousands of rows: a shuffle of the rows themselves took twice the time of all else.
    """
    layout, cores = generation.layout, scores.sparkSession.sparkContext.defaultParallelism
    tasks = max(1, min(layout.buckets, max(cores, rows // ROWS_A_TASK)))
    chunks = hashes(scores, layout).mapInArrow(partial(_chunk_task, layout, tasks), CHUNKS)
    return chunks.repartitionById(tasks, "task").select("chunk"), tasks


def _collected(frame: DataFrame) -> list[Row]:
    """Collect a row of each task; what a task raised of our own errors is raised again, without Spark's wrapping."""
    try:
        return frame.collect()
    except PythonException as error:
        found = re.findall(r"serving\.errors\.(\w+: .+)", str(error))
        if not found:
            raise
    raise _fault(found[-1])


def _fault(told: str) -> ServingError:
    """Return one of our own errors by its name and message."""
    name, _, message = told.partition(": ")
    kind: type[ServingError] = getattr(errors, name)
    return kind(message)


def _chunk_task(layout: Layout, tasks: int, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    parts: list[tuple[Any, Any]] = []
    for batch in batches:
        parts.append(_columns(batch))
        if sum(len(hashed) for hashed, _ in parts) >= ROWS_A_TASK:
            yield _chunks(layout, tasks, parts)
            parts = []
    if parts:
        yield _chunks(layout, tasks, parts)


def _chunks(layout: Layout, tasks: int, parts: list[tuple[Any, Any]]) -> pa.RecordBatch:
    """Return the rows of each task as one value: their hashes, then their scores."""
    hashed, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
    owners = (buckets_of(layout, hashed) * np.uint64(tasks) // np.uint64(layout.buckets)).astype(np.uint16)
    order = np.argsort(owners, kind="stable")  # of 16 bits, NumPy sorts them by counting
    bounds = np.searchsorted(owners[order], np.arange(tasks + 1))
    hashed, scores = hashed[order], scores[order]
    chunks = [hashed[start:end].tobytes() + scores[start:end].tobytes() for start, end in pairwise(bounds)]
    return pa.RecordBatch.from_arrays([pa.array(range(tasks), pa.int32()), pa.array(chunks)], ["task", "chunk"])


def _write_task(generation: Generation, tasks: int, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    task = _task()
    hashed, scores = _sorted(generation.layout, batches)
    layout, buckets = generation.layout, generation.buckets_of(task, tasks)
    told = None
    try:
        blocks = pack_buckets(layout, generation.token, buckets, hashed, [scores])
        with Store(generation.redis_url) as store:
            store.write_blocks(generation.pipeline, generation.token, blocks)
    except ServingError as fault:
        told = f"{type(fault).__name__}: {fault}"
    yield pa.RecordBatch.from_pydict({"fault": pa.array([told], pa.string())})


def _compare_task(generation: Generation, tasks: int, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    total = Comparison()
    with Store(generation.redis_url) as store:
        for right, wrong in _compared(store, generation, tasks, batches):
            lacking = sum(block is None for block in wrong.values())
            total += Comparison(len(right), lacking, len(wrong) - lacking, list(wrong)[:EXAMPLES])
    yield pa.RecordBatch.from_pylist([asdict(total)])


def _repair_task(generation: Generation, tasks: int, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    pipeline, token, total = generation.pipeline, generation.token, 0
    with Store(generation.redis_url) as store:
        for right, wrong in _compared(store, generation, tasks, batches):
            live = store.head(pipeline) if wrong else None
            if live is not None and live.token == token:
                total += store.write_blocks(pipeline, token, ((bucket, right[bucket]) for bucket in wrong))
    yield pa.RecordBatch.from_pylist([{"blocks": total}])


def _compared(
    store: Store, generation: Generation, tasks: int, batches: Iterator[pa.RecordBatch]
) -> Iterator[tuple[dict[int, bytes], dict[int, bytes | None]]]:
    """Give the right blocks of a task's buckets, some at a time, and those of Redis that are not like them."""
    hashed, scores = _sorted(generation.layout, batches)
    buckets, token = generation.buckets_of(_task(), tasks), generation.token
    packed = pack_buckets(generation.layout, token, buckets, hashed, [scores])
    for part in in_batches(packed, BATCH):
        right = dict(part)
        found = store.find_blocks(generation.pipeline, token, right)
        yield right, {bucket: block for bucket, block in found if block != right[bucket]}


def _tally_task(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    total = Tally()
    for batch in batches:
        hashed, scores = _columns(batch)
        total += tally(hashed, [scores])
    yield _row(total)


def _read_task(generation: Generation, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    layout, token, total = generation.layout, generation.token, Tally()
    with Store(generation.redis_url) as store:
        for batch in batches:
            blocks = store.read_blocks(generation.pipeline, token, batch.column(0).to_pylist())
            for part in in_batches(blocks, BATCH):
                total += audit(layout, token, part)
    yield _row(total)


def _sorted(layout: Layout, batches: Iterator[pa.RecordBatch]) -> tuple[Any, Any]:
    """Return all rows of a task's chunks in the order of their unsigned hashes, which is the order of their buckets."""
    chunks = [chunk.as_buffer() for batch in batches for chunk in batch.column(0)]
    counts = [chunk.size // layout.width for chunk in chunks]
    hashed = [np.frombuffer(chunk, np.uint64, count) for chunk, count in zip(chunks, counts, strict=True)]
    scores = [np.frombuffer(chunk, np.float32, count, count * 8) for chunk, count in zip(chunks, counts, strict=True)]
    if not chunks:
        return np.empty(0, np.uint64), np.empty(0, np.float32)
    every = np.concatenate(hashed)
    order = np.argsort(every)
    return every[order], np.concatenate(scores)[order]


def _columns(batch: pa.RecordBatch) -> tuple[Any, Any]:
    hashed = batch.column(0).to_numpy(zero_copy_only=False).view(np.uint64)
    return hashed, batch.column(1).to_numpy(zero_copy_only=False)


def _row(found: Tally) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"rows": pa.array([found.rows], pa.int64()), "checksum": [str(found.checksum)]})


def _total(rows: list[Any]) -> Tally:
    return sum((Tally(row.rows, int(row.checksum)) for row in rows), Tally())


def _task() -> int:
    context = TaskContext.get()
    if context is None:
        raise RuntimeError("blocks are written by Spark tasks only")
    return context.partitionId()
