"""The base of all that a YAML declares."""

from pydantic import BaseModel, ConfigDict


class Declared(BaseModel):
    """Base of all that a YAML declares: unknown fields are mistakes, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)
