"""What a person may set for the embedded runtime: typed, read once; nothing else here reads the environment."""

import os
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, PositiveInt, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from infra.embedded.errors import EmbeddedError
from serving.clock import Clock

PREFIX = "SCORELINE_"
ROOT = Path(__file__).parents[2]
CONFIG = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True)
Port = Annotated[int, Field(ge=1, le=65535)]


def _clock(text: str) -> str:
    Clock.parse(text)
    return text


class Place(BaseSettings):
    """The folder that a run writes to: any text will do."""

    model_config = CONFIG

    var: Path = Field(ROOT / "var", description="Folder for data, models, records, logs; relative to where you are.")


class Settings(BaseSettings):
    """The settings of a start. Each is read from `SCORELINE_` and its name in upper case; an empty one is not set."""

    model_config = CONFIG

    redis_port: Port | None = Field(None, description="Port of Redis; default: 6380, or a free one.")
    mlflow_port: Port | None = Field(None, description="Port of MLflow; default: 5000, or a free one.")
    airflow_port: Port | None = Field(None, description="Port of Airflow; default: 8080, or a free one.")
    lookup_port: Port | None = Field(None, description="Port of the lookup service; default: 8700, or a free one.")
    spark_slots: PositiveInt = Field(1, description="Spark jobs at a time: the slots of Airflow's pool `spark`.")
    lake: str | None = Field(None, description="Root of the Delta tables; default: below the runtime's folder.")
    landing: str | None = Field(None, description="Root of the landing files; default: as for the tables.")
    reports: str | None = Field(None, description="Folder for reports; default: as for the tables.")
    erasure_key_file: str | None = Field(None, description="Secret of erasures; default: as for the tables.")
    streams: bool = Field(default=True, description="Whether `make up` keeps scores fresh between two runs.")
    clock: Annotated[str, AfterValidator(_clock)] = Field("real", description="What time it is: real, or T@R.")


@cache
def settings() -> Settings:
    """Return the settings of this process.

    Raises:
        EmbeddedError: a variable has a value that cannot be used; the message names each.
    """
    try:
        return Settings()
    except ValidationError as faults:
        raise EmbeddedError("; ".join(_worded(str(fault["loc"][0]), fault) for fault in faults.errors())) from None


def inherited() -> dict[str, str]:
    """Return a copy of the environment that this process was given."""
    return dict(os.environ)  # noqa: TID251  reason: what is not ours is handed on to the programs that we start


def _worded(name: str, fault: object) -> str:
    told = dict(fault) if isinstance(fault, dict) else {}
    return f"{PREFIX}{name.upper()}={told.get('input')}: {told.get('msg')}; set it to such a value or unset it"
