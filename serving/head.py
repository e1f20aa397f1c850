"""The head record: the one small value that says which generation of a pipeline is live."""

from dataclasses import field
from functools import cached_property, lru_cache
from typing import Annotated, Literal

from pydantic import Field, PlainSerializer, TypeAdapter, ValidationError, field_validator
from pydantic.dataclasses import dataclass

from serving.errors import HeadUnreadable
from serving.keys import PIPELINE_NAME
from serving.layout import EXACT, SCORE, Layout

MOST_BATCH = 10_000  # in one request, whatever a pipeline allows
# Readers in other languages hold numbers as doubles: 64 bits travel as text, numbers stay below 2^53.
Token = Annotated[int, Field(ge=1, lt=EXACT)]
Count = Annotated[int, Field(ge=0, lt=EXACT)]
Microseconds = Annotated[int, Field(gt=-EXACT, lt=EXACT)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Unsigned64 = Annotated[int, Field(ge=0, lt=2**64), PlainSerializer(str, return_type=str)]


@dataclass(frozen=True)
class Model:
    """The model version that made the scores, and the digest of its artefact."""

    name: str
    version: str
    digest: str


@dataclass(frozen=True)
class Fallback:
    """What an unknown key is answered with: `score`, or for a caller who names one of `segments`, that segment's."""

    kind: Literal["constant", "prior"]
    score: Finite
    segments: dict[str, Finite] = field(default_factory=dict)

    def score_of(self, segment: str | None) -> float:
        """Return the score for a key of which nothing is known but, perhaps, its segment."""
        return self.score if segment is None else self.segments.get(segment, self.score)


@dataclass(frozen=True)
class Overlay:
    """How the fresher values of single keys are spread: by the unsalted hash, whatever layout a generation has."""

    buckets: Annotated[int, Field(ge=1, lt=2**31)]

    @cached_property
    def spread(self) -> Layout:
        """The layout whose `hash_of` and `bucket_of` place a key."""
        return Layout(buckets=self.buckets)


@dataclass(frozen=True)
class Limits:
    """The most keys in one request, and the most bytes of a key in UTF-8."""

    batch: Annotated[int, Field(ge=1, le=MOST_BATCH)] = 1000
    key_bytes: Annotated[int, Field(ge=1)] = 256


@dataclass(frozen=True, kw_only=True)
class Head:
    """A live generation and all that the service must know of its pipeline.

    `token` names the generation; `as_of` and `published_at` are microseconds since 1970 UTC; `checksum` is that of
    `blocks.Tally` over all rows; `events_version` is the version of the events table that the scores were made from.
    The layout has a column `score`. Of one epoch, (as_of, token) only rises; a rollback, a forced publication,
    another model, and an overlay where there was none or none where there was one begin a new epoch. `overlay` is None
    where nothing fresher is ever written.
    """

    format: Literal[1] = 1
    pipeline: Annotated[str, Field(pattern=PIPELINE_NAME)]
    token: Token
    epoch: Annotated[int, Field(ge=1)] = 1
    as_of: Microseconds
    arms: tuple[str, ...] = ("champion",)
    model: Model
    rows: Count
    checksum: Unsigned64
    layout: Layout
    events_version: Count
    run_id: str
    published_at: Microseconds
    fallback: Fallback | None = None
    limits: Limits = Limits()
    overlay: Overlay | None = None

    @field_validator("layout")
    @classmethod
    def _has_a_score(cls, layout: Layout) -> Layout:
        if SCORE not in layout.places:
            raise ValueError(f"no column {SCORE}")
        return layout

    def overtakes(self, as_of: int) -> bool:
        """Return whether scores as of `as_of` (microseconds) are history only while this generation is live.

        An equal as_of is a restatement: the token that is drawn for it is the higher one.
        """
        return self.as_of > as_of

    @property
    def order(self) -> tuple[int, int, int]:
        """What rises with every change of the head: one that is lower than one seen before was brought back."""
        return self.epoch, self.as_of, self.token

    def to_json(self) -> bytes:
        """Return the record as Redis holds it; equal heads give equal bytes."""
        return RECORD.dump_json(self)


RECORD = TypeAdapter(Head)


@lru_cache(maxsize=256)
def parse_head(raw: bytes) -> Head:
    """Return the head of a record, or raise `HeadUnreadable`."""
    try:
        return RECORD.validate_json(raw)
    except ValidationError as fault:
        raise HeadUnreadable(
            f"a head record this version cannot read ({fault.error_count()} faults, first: "
            f"{fault.errors()[0]['loc']} {fault.errors()[0]['msg']}): upgrade what reads it, or replace it by "
            "`scoreline republish`"
        ) from fault
