"""The settings of store and service, read once from the environment (SCORELINE_...)."""

from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from serving.clock import Clock
from serving.errors import SettingsError
from serving.wire.target import target_of

PREFIX = "SCORELINE_"


def _clock(value: object) -> object:
    return Clock.parse(value) if isinstance(value, str) else value


def _url(value: str) -> str:
    target_of(value)
    return value


class Settings(BaseSettings):
    """Where Redis is, where the service listens, and what time it is."""

    # A value that is wrong may be a password all the same.
    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, hide_input_in_errors=True)

    redis_url: Annotated[str, AfterValidator(_url)] = "redis://127.0.0.1:6379/0"
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8700
    api_keys_file: Path | None = None
    clock: Annotated[Clock, NoDecode, BeforeValidator(_clock)] = Clock()


@cache
def settings() -> Settings:
    """Return the settings of this process, or raise `SettingsError` naming each variable that cannot be used.

    Of a URL of Redis that cannot be used nothing is shown: it may hold a password.
    """
    try:
        return Settings()
    except ValidationError as faults:
        raise SettingsError("; ".join(_worded(fault["loc"], fault["msg"]) for fault in faults.errors())) from faults


def _worded(loc: tuple[int | str, ...], message: str) -> str:
    return f"{PREFIX}{str(loc[0]).upper()}: {message}"
