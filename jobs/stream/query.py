"""The streaming query: what each new event says about its key, with all that was known of it, a batch at a time."""

from collections.abc import Callable

from pyspark.sql import DataFrame
from pyspark.sql.streaming.query import StreamingQuery

from jobs.staging import DELIVERY
from jobs.stream.site import Site
from jobs.stream.touched import histories

# Of a query whose state is each key's history. The rest is the cluster's own configuration.
STATE = {
    "spark.sql.streaming.stateStore.providerClass": (
        "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"
    ),
    # A commit writes what has changed; without it, all files of the state.
    "spark.sql.streaming.stateStore.rocksdb.changelogCheckpointing.enabled": "true",
    "spark.sql.streaming.minBatchesToRetain": "10",
}
WHOLE_COMMITS = 2**31 - 1  # files in one batch: a version of the events is taken whole, or none of it


def why(query: StreamingQuery) -> str:
    """Return why a query has ended."""
    fault = query.exception()
    return " ".join(str(fault).split())[:500] if fault else "nobody says why"


def start(site: Site, process: Callable[[DataFrame, int], None], checkpoint: str) -> StreamingQuery:
    """Start the query over the pipeline's events, and return it; `process` gets histories and the batch's number."""
    spark = site.lake.spark
    for name, value in STATE.items():
        spark.conf.set(name, value)
    reader = spark.readStream.format("delta").option("maxFilesPerTrigger", WHOLE_COMMITS)
    # Only an erasure changes events, and it begins the state anew.
    events = reader.option("skipChangeCommits", value=True).load(site.lake.path(site.events))
    touched = histories(events.drop(*DELIVERY), site.pipeline.entity_key)
    writer = touched.writeStream.outputMode("update").foreachBatch(process)
    every = f"{site.stream.every_ms} milliseconds"
    return writer.option("checkpointLocation", checkpoint).trigger(processingTime=every).start()
