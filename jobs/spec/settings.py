"""Where things are: typed, read once from the environment, and nowhere else."""

from functools import lru_cache
from pathlib import Path

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from jobs.errors import ScorelineError


class Settings(BaseSettings):
    """The settings of the jobs. Each is read from `SCORELINE_` and its name in upper case; empty is unset."""

    model_config = SettingsConfigDict(env_prefix="SCORELINE_", env_ignore_empty=True, frozen=True)

    project: Path = Field(
        Path(__file__).parents[2], description="Folder with dags/pipelines, jobs/sql, expectations/suites."
    )
    lake: str = Field("", description="Root of the Delta tables: a folder or any Hadoop file system's URI.")
    landing: str = Field("", description="Root of the landing files: a folder or any Hadoop file system's URI.")
    reports: Path = Field(Path(), description="Folder for reports that people open.")
    mlflow_uri: str = Field("", description="MLflow tracking and registry URI.")

    @model_validator(mode="before")
    @classmethod
    def _under_var(cls, given: dict[str, object]) -> dict[str, object]:
        """What is not set is under the project's `var/`."""
        var = Path(str(given.get("project", Path(__file__).parents[2]))).resolve() / "var"
        places = {"lake": var / "lake", "landing": var / "landing", "reports": var / "reports"}
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
    except ValidationError as error:
        first = error.errors()[0]
        name = "SCORELINE_" + "_".join(str(part) for part in first["loc"]).upper()
        raise ScorelineError(f"{name}: {first['msg']}; set it to a value of that type or unset it") from error
