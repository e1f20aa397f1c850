"""A topic of Kafka as a stream of Spark: where it is read, by which options, and how far it was read."""

import json
from contextlib import suppress
from dataclasses import dataclass
from uuid import uuid4

from pyspark.sql import DataFrame, SparkSession

from jobs.errors import CheckpointDamaged, DataFault, StreamChanged
from jobs.lake import Lake
from jobs.spec import Pipeline, Settings
from jobs.spec.stream import Kafka
from jobs.stream.checkpoint import recorded


@dataclass(frozen=True)
class Place:
    """How far a topic was read: the id and the folder of the checkpoint, and where a new one begins.

    It is not below the stream's own checkpoint: to build that anew from the events table is not to read a topic again.
    """

    id: str
    folder: str
    starting: str


def place(lake: Lake, pipeline: Pipeline) -> Place:
    """Return the place to go on from; each topic has its own.

    Raises:
        StreamChanged: the events table was made anew since, without what was read before.
        CheckpointDamaged: the record of it cannot be read.
    """
    told = _told(lake, pipeline)
    if told is None:
        return _write(lake, pipeline, _topic(pipeline).starting)
    if told["table"] != _table(lake, pipeline):
        raise StreamChanged(
            f"{pipeline.name}: events/{pipeline.events[0]} was made anew since {_topic(pipeline).topic} was read: "
            f"{_remedy(pipeline)}"
        )
    return Place(told["id"], f"{_folder(pipeline)}/{told['id']}", told["starting"])


def begin_again(lake: Lake, pipeline: Pipeline) -> None:
    """Have the topic read again, from the oldest message that it has."""
    if pipeline.topic is None:
        raise DataFault(f"{pipeline.name}.yaml declares no topic to read again: write it below stream.kafka")
    told = None
    with suppress(CheckpointDamaged):
        told = _told(lake, pipeline)
    _write(lake, pipeline, "earliest")
    if told is not None:
        lake.files.delete(f"{_folder(pipeline)}/{told['id']}")


def messages(spark: SparkSession, topic: Kafka, starting: str, settings: Settings) -> DataFrame:
    """Return a topic's messages (key, value, topic, partition, offset, timestamp) as a stream."""
    options = {f"kafka.{name}": value.get_secret_value() for name, value in settings.kafka_options.items()}
    reader = spark.readStream.format("kafka").options(**options).option("kafka.bootstrap.servers", settings.kafka)
    reader = reader.option("subscribe", topic.topic).option("startingOffsets", starting)
    return reader.option("failOnDataLoss", value=True).option("maxOffsetsPerTrigger", topic.max_per_batch).load()


def _told(lake: Lake, pipeline: Pipeline) -> dict[str, str] | None:
    return recorded(lake, _record(pipeline), ("id", "starting", "table"), _remedy(pipeline))


def _remedy(pipeline: Pipeline) -> str:
    return f"`scoreline stream start {pipeline.name} --reread` reads it again from the oldest message that it has"


def _write(lake: Lake, pipeline: Pipeline, starting: str) -> Place:
    new, folder = uuid4().hex, _folder(pipeline)
    told = {"id": new, "starting": starting, "table": _table(lake, pipeline)}
    lake.files.write_line(_record(pipeline), json.dumps(told))
    return Place(new, f"{folder}/{new}", starting)


def _folder(pipeline: Pipeline) -> str:
    return f"topics/{pipeline.name}/{_topic(pipeline).topic}"


def _record(pipeline: Pipeline) -> str:
    return f"{_folder(pipeline)}/place.json"


def _table(lake: Lake, pipeline: Pipeline) -> str:
    return lake.identity(f"events/{pipeline.events[0]}")


def _topic(pipeline: Pipeline) -> Kafka:
    if pipeline.topic is None:
        raise ValueError(f"{pipeline.name} declares no topic")
    return pipeline.topic
