"""How often the tasks that need Redis or MLflow try again: enough for half an hour without them."""

from datetime import timedelta
from typing import Any

from jobs.spec import Pipeline

RETRIES = 8
LONGEST_DELAY = timedelta(minutes=5)  # so that a task is back soon after what it needs


def patience(pipeline: Pipeline) -> dict[str, Any]:
    """Return what such a task is given; a fault of the data still fails at once."""
    return {"retries": retries(pipeline), "max_retry_delay": LONGEST_DELAY}


def retries(pipeline: Pipeline) -> int:
    """Return how often such a task of the pipeline is tried again."""
    return max(RETRIES, pipeline.schedule.retries)
