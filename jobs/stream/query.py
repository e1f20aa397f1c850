"""The streaming query: what each new event says about its key, with all that was known of it, a batch at a time."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from jobs.erasure.tombstones import without_erased
from jobs.staging import DELIVERY
from jobs.stream.site import Site
from jobs.stream.touched import histories

# Of a query whose state is each key's history, and of its micro-batches. The rest is the cluster's own configuration.
OWN = {
    "spark.sql.streaming.stateStore.providerClass": (
        "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"
    ),
    # A commit writes what has changed; without it, all files of the state.
    "spark.sql.streaming.stateStore.rocksdb.changelogCheckpointing.enabled": "true",
    "spark.sql.streaming.minBatchesToRetain": "10",
    # A micro-batch is one partition, which is joined with itself where it is: to broadcast a side is one more job.
    "spark.sql.autoBroadcastJoinThreshold": "-1",
    # What is held here goes to Spark as Arrow has it, and not row by row in a plan that depends on how many there are.
    "spark.sql.execution.arrow.localRelationThreshold": "0",
}
TRACE = re.compile(r"Traceback \(most recent call last\):\n(?: .*\n)*")
LONGEST = 500  # characters of a reason
# How Delta says that it no longer has the commits that come next.
LOG_IS_GONE = (
    "DELTA_LOG_FILE_NOT_FOUND_FOR_STREAMING_SOURCE",
    "DELTA_MISSING_FILES_UNEXPECTED_VERSION",
)
# A listing is no snapshot: whoever makes one while others commit may miss a version and see the next. Delta says so, or
# takes what it missed for gone.
MISSED = ("DELTA_VERSIONS_NOT_CONTIGUOUS", *LOG_IS_GONE)
FILE_IS_GONE = "FAILED_READ_FILE.FILE_NOT_EXIST"  # of the events: compacted away meanwhile, and removed
WAITING = "Waiting for"  # how Spark's word on a query begins that has looked for data and found none
WHOLE_COMMITS = 2**31 - 1  # files in one batch: a version of the events is taken whole, or none of it


def why(query: StreamingQuery) -> str:
    """Return why a query has ended, in a line: of a fault in Python what it says, and not where it was."""
    fault = query.exception()
    return " ".join(TRACE.sub("", str(fault)).split())[:LONGEST] if fault else "nobody says why"


def outlived_log(query: StreamingQuery, table: str) -> bool:
    """Return whether a query has ended because the log of the events, at `table`, lacks what it would go on with."""
    fault = str(query.exception())
    return any(told in fault for told in LOG_IS_GONE) or (FILE_IS_GONE in fault and table in fault)


def missed_commit(query: StreamingQuery, fault: BaseException) -> bool:
    """Return whether a query, or who works beside it, saw a commit and not the one below it, be it for a moment."""
    told = f"{fault} {query.exception()}"
    return any(each in told for each in MISSED)


def needed_version(query: StreamingQuery) -> int:
    """Return the version of the events' log where the last micro-batch began that read any; 0 if unknown.

    From there Spark reads again when the query is started again, also what that micro-batch has committed.
    """
    progress = query.lastProgress
    if progress is None:
        return 0
    before, after = (json.loads(progress["sources"][0][name] or "null") or {} for name in ("startOffset", "endOffset"))
    return 0 if before == after or before.get("isStartingVersion", True) else int(before["reservoirVersion"])


def is_idle(query: StreamingQuery) -> bool:
    """Tell whether a query has looked for data, found none, and is about to look again."""
    status = query.status
    told = str(status["message"]).startswith(WAITING)
    return told and not status["isDataAvailable"] and not status["isTriggerActive"]


def start(site: Site, process: Callable[[DataFrame, int], None], checkpoint: str) -> StreamingQuery:
    """Start the query over the pipeline's events, and return it; `process` gets histories and the batch's number."""
    spark = site.lake.spark
    reader = spark.readStream.format("delta").option("maxFilesPerTrigger", WHOLE_COMMITS)
    # Only an erasure changes events, and it begins the state anew: so the tombstones of now are all for this query.
    found = reader.option("skipChangeCommits", value=True).load(site.lake.path(site.events))
    events = without_erased(found, site.settings, site.events)
    touched = histories(events.drop(*DELIVERY), site.pipeline.entity_key)
    writer = touched.writeStream.outputMode("update").foreachBatch(process)
    every = f"{site.stream.every_ms} milliseconds"
    with _configured(spark, OWN):
        return writer.option("checkpointLocation", checkpoint).trigger(processingTime=every).start()


@contextmanager
def _configured(spark: SparkSession, options: dict[str, str]) -> Iterator[None]:
    """Set options while a query is started, which keeps a copy of them; what scores from the tables has its own."""
    before = {name: spark.conf.get(name, None) for name in options}
    for name, value in options.items():
        spark.conf.set(name, value)
    try:
        yield
    finally:
        for name, kept in before.items():
            if kept is None:
                spark.conf.unset(name)
            else:
                spark.conf.set(name, kept)
