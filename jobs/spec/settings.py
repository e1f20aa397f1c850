"""Where things are: typed, read once from the environment, and nowhere else."""

import shlex
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from jobs.errors import ScorelineError


def _command(line: str) -> str:
    shlex.split(line)
    return line


class Settings(BaseSettings):
    """The settings of the jobs. Each is read from `SCORELINE_` and its name in upper case; empty is unset."""

    model_config = SettingsConfigDict(env_prefix="SCORELINE_", env_ignore_empty=True, frozen=True)

    project: Path = Field(
        Path(__file__).parents[2], description="Folder with dags/pipelines, jobs/sql, expectations/suites."
    )
    lake: str = Field("", description="Root of the Delta tables: a folder or any Hadoop file system's URI.")
    landing: str = Field("", description="Root of the landing files: a folder or any Hadoop file system's URI.")
    reports: Path = Field(Path(), description="Folder for reports that people open.")
    url: str = Field("http://127.0.0.1:8700", description="URL of the lookup service, to watch scores change.")
    mlflow_uri: str = Field("", description="MLflow tracking and registry URI.")
    kafka: str = Field("127.0.0.1:9092", description="Kafka's bootstrap servers: host:port,host:port.")
    kafka_options: dict[str, SecretStr] = Field(
        default_factory=dict,
        description='Further options of Kafka\'s clients, a JSON object: {"security.protocol": "SASL_SSL", ...}.',
    )

    stream_restart: Annotated[str, AfterValidator(_command)] = Field(
        "", description="Command that has a dead stream started and returns at once; {pipeline} in it is the name."
    )

    erasure_key_file: Path = Field(
        Path(), description="File of the secret that erased keys are hashed with; made at the first erasure."
    )

    @field_validator("kafka_options")
    @classmethod
    def _servers_have_their_own(cls, given: dict[str, SecretStr]) -> dict[str, SecretStr]:
        if "bootstrap.servers" in given:
            raise ValueError("bootstrap.servers has a variable of its own, SCORELINE_KAFKA")
        return given

    @model_validator(mode="before")
    @classmethod
    def _under_var(cls, given: dict[str, object]) -> dict[str, object]:
        """What is not set is under the project's `var/`."""
        var = Path(str(given.get("project", Path(__file__).parents[2]))).resolve() / "var"
        places = {"lake": var / "lake", "landing": var / "landing", "reports": var / "reports"}
        places["erasure_key_file"] = var / "erasure.key"
        defaults = {name: str(path) for name, path in places.items()}
        return {**defaults, "mlflow_uri": f"sqlite:///{var}/mlflow/mlflow.db", **given}

    @property
    def pipelines(self) -> Path:
        """The folder of the pipelines' YAML files."""
        return self.project / "dags" / "pipelines"

    @property
    def suites(self) -> Path:
        """The folder that has one folder of suites for each pipeline."""
        return self.project / "expectations" / "suites"

    def table(self, name: str) -> str:
        """Return the path of a table below the lake's root."""
        return f"{self.lake.rstrip('/')}/{name}"

    def sql(self, pipeline: str, name: str) -> Path:
        """Return the path of one SQL file of a pipeline."""
        return self.project / "jobs" / "sql" / pipeline / f"{name}.sql"


@lru_cache(maxsize=1)
def settings() -> Settings:
    """Return the settings of this process.

    Raises:
        ScorelineError: a variable has a wrong value; the message names it.
    """
    try:
        return Settings()
    except SettingsError as error:  # nothing of the value is shown: it may be a password
        raise ScorelineError(f"SCORELINE_KAFKA_OPTIONS: this is no JSON object; {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        name = "SCORELINE_" + "_".join(str(part) for part in first["loc"]).upper()
        raise ScorelineError(f"{name}: {first['msg']}; set it to a value of that type or unset it") from error
