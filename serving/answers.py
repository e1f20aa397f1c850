"""What the lookup service takes and answers, typed once for the service and its clients."""

from dataclasses import dataclass
from datetime import date
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, FailFast, Field, Strict

from serving.head import MOST_BATCH, Limits


def _encodable(key: str) -> str:
    """JSON can spell half a character (a lone surrogate), which no key holds; UnicodeEncodeError is a ValueError."""
    key.encode()
    return key


Key = Annotated[str, AfterValidator(_encodable)]
Source = Literal["batch", "stream", "fallback"]
Segment = Annotated[
    Key,
    Field(description="Chooses among the fallbacks of a pipeline that declares some by segment.", max_length=256),
]
MaxAge = Annotated[
    float,
    Field(
        ge=0,
        allow_inf_nan=False,
        description="Seconds. What is known of a key and older is not answered: the fallback is, or `answer-too-old`.",
    ),
]
Seconds = Annotated[float, Field(description="By the service's clock; below zero only where that clock is set back.")]


class Frozen(BaseModel):
    """An immutable value."""

    model_config = ConfigDict(frozen=True)


class ModelVersion(Frozen):
    """The registered model version that made a score."""

    name: str
    version: str


class Score(Frozen):
    """The score of one key, or the pipeline's fallback.

    `batch` is the live generation's, `stream` a fresher one; `fallback` is what the pipeline declares for keys that it
    does not know, or for those of which it knows nothing as fresh as was asked for; its as_of is the generation's.
    """

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
    request_id: Annotated[str | None, Field(description="What the service's log calls the request.")] = None


class Missing(Frozen):
    """A key of a batch that has no score, and why."""

    key: str
    problem: Problem


class Keys(Frozen):
    """The keys of a batch lookup; how many at most is in the pipeline's limits."""

    # At the first fault it stops: a body may hold a million of them.
    keys: Annotated[
        list[Key],
        FailFast(),
        Field(
            max_length=MOST_BATCH,
            description="So many at most, unless the pipeline's `max_keys` in `/v1/pipelines` is another number.",
            json_schema_extra={"maxItems": Limits().batch},
        ),
    ]
    segment: Segment | None = None
    max_age: Annotated[MaxAge | None, Strict()] = None


@dataclass(frozen=True)
class Wishes:
    """What holds for all keys of a call: a segment for fallbacks, the most seconds that an answer may be old."""

    segment: str | None = None
    max_age: float | None = None


class Batch(Frozen):
    """One answer for each key, in the order of the keys, all from one generation."""

    pipeline: str
    generation: int
    answers: list[Score | Missing]


class RefusedDate(Frozen):
    """Why the scores as of a date are not live, and when that was decided."""

    as_of: date
    verdict: str
    reason: str
    at: AwareDatetime


class PipelineStatus(Frozen):
    """What is live of a pipeline; `refusals` has the newest date first."""

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
    refusals: list[RefusedDate] = []


class NothingLive(Frozen):
    """A pipeline of which nothing has gone live yet, and why not."""

    pipeline: str
    refusals: list[RefusedDate]


class Pipelines(Frozen):
    """The pipelines that the caller may read, by name: those with a live generation, and those without any."""

    pipelines: list[PipelineStatus]
    not_live: list[NothingLive] = []


class Health(Frozen):
    """The service is up, or ready."""

    status: Literal["ok"] = "ok"
