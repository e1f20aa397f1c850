"""What a pipeline's YAML may say of its micro-batches."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveInt

from jobs.spec.declared import Declared

TOPIC = re.compile(r"(?!\.{1,2}$)[a-zA-Z0-9._-]{1,249}")


def _topic(value: str) -> str:
    if not TOPIC.fullmatch(value):
        raise ValueError(f"'{value}' is not a topic's name: write letters, digits, dots, _ and -")
    return value


class Kafka(Declared):
    """A topic whose messages become events: a JSON object each, with the columns of the source."""

    topic: Annotated[str, AfterValidator(_topic)] = Field(
        description="Topic to read. The brokers' addresses are a setting: SCORELINE_KAFKA."
    )
    starting: Literal["earliest", "latest"] = Field(
        "earliest", description="Where a topic that was never read begins: at its oldest message, or with what comes."
    )
    max_per_batch: PositiveInt = Field(10_000, description="Most messages that are appended at a time.")


class Stream(Declared):
    """Which scores are kept fresh between two runs, and how."""

    segment: str | None = Field(
        None,
        min_length=1,
        description="SQL condition over the features: the keys that are kept fresh; default: all that have an event.",
    )
    longest_history: PositiveInt = Field(
        10_000, description="Events of one key beyond which its score waits for the next run."
    )
    stuck_minutes: PositiveInt = Field(
        10, description="Minutes without progress after which a stream that is behind is somebody's matter."
    )
    every_ms: PositiveInt = Field(100, description="Least milliseconds from the begin of a micro-batch to the next.")
    kafka: Kafka | None = Field(None, description="A topic that live events come from, besides what others append.")
