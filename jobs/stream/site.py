"""What a stream works on: its pipeline, tables, Redis and models."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pyspark.sql import DataFrame

from expectations.gate import Gate
from expectations.rows import RowRules
from jobs.lake import Lake
from jobs.registry import fetch
from jobs.spec import Pipeline, Settings
from jobs.spec.stream import Stream
from jobs.sqlfile import pipeline_sql
from jobs.stream.scored import Recipe
from serving.clock import Clock
from serving.head import Model
from serving.store import Store


@dataclass(frozen=True)
class Site:
    """The surroundings of one stream; `query_id` names its checkpoint."""

    pipeline: Pipeline
    lake: Lake
    settings: Settings
    clock: Clock
    store: Store
    query_id: str

    @cached_property
    def stream(self) -> Stream:
        """What the YAML declares of the stream."""
        if self.pipeline.stream is None:
            raise ValueError(f"{self.pipeline.name} declares no stream")
        return self.pipeline.stream

    @property
    def events(self) -> str:
        """The name of the events table."""
        return f"events/{self.pipeline.events[0]}"

    @property
    def gate(self) -> Gate:
        """The gate that knows the pipeline's suites."""
        return Gate(self.settings.suites / self.pipeline.name, Path(self.settings.reports) / "expectations")

    @cached_property
    def recipes(self) -> "Recipes":
        """How the pipeline's keys are scored, by model."""
        return Recipes(self)


class Recipes:
    """Recipes of one pipeline; what takes longer than a micro-batch may is done once."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._rules: RowRules | None = None
        self._recipes: dict[Model, Recipe] = {}

    def of(self, model: Model) -> Recipe:
        """Return how keys are scored while `model` is that of the live generation.

        Raises:
            ModelMissing: the registry has it no more.
            ArtefactRefused: it is not what was registered.
            RegistryUnavailable: MLflow does not answer.
        """
        if model not in self._recipes:
            found = fetch(self.site.settings.mlflow_uri, model.name, model.version, model.digest)
            # Read again: a model that was trained on other features.sql comes with it.
            sql = pipeline_sql(self.site.settings, self.site.pipeline, "features")
            self._rules = None
            # One at a time: the others are over.
            self._recipes = {model: Recipe(sql, self.rules, self.site.stream.segment or "true", found)}
        return self._recipes[model]

    def rules(self, seen: DataFrame) -> RowRules:
        """Return the row-level rules for features; what they know beside a row (a mean, say), they do not know here."""
        if self._rules is None:
            suite = self.site.gate.suite(self.site.pipeline.features.suite)
            self._rules = RowRules.of(seen.sparkSession.createDataFrame([], seen.schema), suite)
        return self._rules
