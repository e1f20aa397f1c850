"""What a pipeline's YAML may say of its publication to Redis."""

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from jobs.spec.declared import Declared


class Rails(Declared):
    """How far a generation may be from the one that is live; beyond that it does not go live, and the task fails."""

    fall: float = Field(0.2, ge=0, le=1, description="Largest fall of the row count, as a share of the live one's.")
    rise: float = Field(
        1.0, ge=0, allow_inf_nan=False, description="Largest rise of the row count, as a share of the live one's."
    )
    nulls: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Largest share of rows without a score; within it, their keys are left out. `score` leaves none: "
        "it matters only where something else writes the scores table.",
    )
    changed: float | None = Field(
        None, ge=0, le=1, description="Largest share of changed scores among the keys that both have; default: any."
    )
    tolerance: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="A score has changed if it differs by more; default: 0."
    )

    @model_validator(mode="after")
    def _tolerance_has_a_use(self) -> "Rails":
        if self.tolerance is not None and self.changed is None:
            raise ValueError("tolerance says when a score has changed: write changed: too, the largest share of such")
        return self


class Publication(Declared):
    """How scores are published to Redis."""

    keep: PositiveInt = Field(3, description="Generations that stay, for rollback.")
    keys_per_block: int = Field(64, ge=1, le=1024, description="Entity keys that share one packed block, on average.")
    rails: Rails = Field(
        default_factory=lambda: Rails.model_validate({}), description="What keeps a bad generation from going live."
    )


class Fallback(Declared):
    """What an unknown entity key gets."""

    kind: Literal["constant", "prior"] = Field(
        "constant",
        description="constant: one declared score; prior: the mean score of the population, or of the key's segment.",
    )
    score: float | None = Field(
        None,
        allow_inf_nan=False,
        description="The score that an unknown key gets, marked as fallback (constant only).",
    )
    segments: str | None = Field(
        None,
        min_length=1,
        description="SQL expression over the columns of the features, which names a key's segment (prior only).",
    )

    @model_validator(mode="after")
    def _fits_its_kind(self) -> "Fallback":
        if self.kind == "constant" and (self.score is None or self.segments is not None):
            raise ValueError("kind constant has a score and nothing else: write score: and its value, or kind: prior")
        if self.kind == "prior" and self.score is not None:
            raise ValueError("kind prior computes its score: remove score:, or write kind: constant")
        return self
