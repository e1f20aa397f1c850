"""The one place that says whether a key was erased."""

from typing import Literal

from jobs.spec import Pipeline, Settings

Erasure = Literal["erased", "kept", "unknown"]


def erasure_of(_settings: Settings, _pipeline: Pipeline, _key: str) -> Erasure:
    """Return whether a key was erased: nothing puts that on record yet."""
    return "unknown"
