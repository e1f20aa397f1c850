"""What the lookup service takes and answers, typed once for the service and its clients."""

from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, FailFast, Field

from serving.head import MOST_BATCH


def _encodable(key: str) -> str:
    """JSON can spell half a character (a lone surrogate), which no key holds; UnicodeEncodeError is a ValueError."""
    key.encode()
    return key


Key = Annotated[str, AfterValidator(_encodable)]
Source = Literal["batch", "fallback"]
Seconds = Annotated[float, Field(description="By the service's clock; below zero only where that clock is set back.")]


class Frozen(BaseModel):
    """An immutable value."""

    model_config = ConfigDict(frozen=True)


class ModelVersion(Frozen):
    """The registered model version that made a score."""

    name: str
    version: str


class Score(Frozen):
    """The score of one key, or the pipeline's fallback for a key that its live generation does not know."""

    key: str
    score: float
    as_of: Annotated[AwareDatetime, Field(description="What the score knows of: all that was visible then, in UTC.")]
    age_seconds: Seconds
    source: Source
    generation: int
    model: Annotated[ModelVersion | None, Field(description="None for a fallback: no model made it.")]


class Problem(Frozen):
    """An RFC 9457 problem document; the last part of `type` is a stable code."""

    type: str
    title: str
    status: int
    detail: str


class Missing(Frozen):
    """A key of a batch that has no score, and why."""

    key: str
    problem: Problem


class Keys(Frozen):
    """The keys of a batch lookup; how many at most is in the pipeline's limits."""

    # At the first fault it stops: a body may hold a million of them.
    keys: Annotated[list[Key], FailFast(), Field(max_length=MOST_BATCH)]


class Batch(Frozen):
    """One answer for each key, in the order of the keys, all from one generation."""

    pipeline: str
    generation: int
    answers: list[Score | Missing]


class PipelineStatus(Frozen):
    """What is live of a pipeline."""

    pipeline: str
    generation: int
    epoch: int
    as_of: AwareDatetime
    age_seconds: Seconds
    published_at: AwareDatetime
    run_id: str
    rows: int
    model: ModelVersion
    fallback: float | None
    max_keys: int
    max_key_bytes: int


class Pipelines(Frozen):
    """All pipelines with a live generation, by name."""

    pipelines: list[PipelineStatus]


class Health(Frozen):
    """The service is up, or ready."""

    status: Literal["ok"] = "ok"
