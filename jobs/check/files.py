"""What can be told of a pipeline's files by reading them, and by letting Spark plan its SQL."""

from dataclasses import dataclass, field

import pyarrow as pa
from pyspark.sql import SparkSession
from pyspark.sql.types import StructType

from expectations.suites import Suite, load_suite
from jobs.check.findings import Finding, faults_of, faulty, fine
from jobs.check.sample import empty_like
from jobs.check.worlds import Probe, World
from jobs.features import feature_names, labels, population, with_spine
from jobs.scoring import require_features
from jobs.spec import Pipeline, Settings
from jobs.sqlfile import SqlFile, naming, pipeline_sql
from jobs.staging import DELIVERY
from jobs.tables import dimension_table, events_table, scores_table

NEEDED = ("population", "features", "labels")
STAGED = ("parse_fault", "raw", *DELIVERY)


@dataclass
class Files:
    """A pipeline's SQL and suites, as far as they can be read, and what was found on the way."""

    settings: Settings
    pipeline: Pipeline
    found: list[Finding] = field(default_factory=list)
    sql: dict[str, SqlFile] = field(default_factory=dict)
    suites: dict[str, Suite] = field(default_factory=dict)
    features: StructType | None = None

    @property
    def is_sound(self) -> bool:
        """Whether the SQL can be run at all."""
        return self.features is not None and not any(one.is_fault and one.about.endswith(".sql") for one in self.found)

    def read(self) -> None:
        """Read SQL and suites."""
        kinds = [*NEEDED]
        if self.settings.sql(self.pipeline.name, "evaluation").is_file():
            kinds.append("evaluation")
        for kind in kinds:
            with faults_of(f"{kind}.sql", self.found):
                self.sql[kind] = pipeline_sql(self.settings, self.pipeline, kind)
        folder, suites = self.settings.suites / self.pipeline.name, self._suites()
        for name in suites:
            with faults_of(f"suite {name}", self.found):
                self.suites[name] = load_suite(folder / f"{name}.yaml")

    def plan(self, spark: SparkSession) -> None:
        """Let Spark plan the SQL over what the sources declare, and compare the suites with the columns."""
        for kind, plan in (("population", self._population), ("features", self._features), ("labels", self._labels)):
            if kind in self.sql:
                with faults_of(f"{kind}.sql", self.found), naming(self.sql[kind].path):
                    plan(spark)
        if self.features is not None and "evaluation" in self.sql:
            with faults_of("evaluation.sql", self.found), naming(self.sql["evaluation"].path):
                self._evaluation(spark, self.features)
        refused = {one.about for one in self.found}
        self.found += [fine(f"{kind}.sql", "parsed and planned") for kind in self.sql if f"{kind}.sql" not in refused]
        self._compare_suites()

    def _population(self, spark: SparkSession) -> None:
        population(spark.createDataFrame(self._empty(spark).events), [], self.sql["population"].text)

    def _features(self, spark: SparkSession) -> None:
        planned = Probe(spark, self.pipeline).features_in(self.sql["features"], self._empty(spark), _spine(spark))
        require_features(planned, feature_names(planned))
        self.features = planned.schema

    def _labels(self, spark: SparkSession) -> None:
        events, spine = (spark.createDataFrame(rows) for rows in (self._empty(spark).events, _spine(spark)))
        labels(events, spine, self.sql["labels"].text, self.pipeline.label.horizon_days)

    def _evaluation(self, spark: SparkSession, features: StructType) -> None:
        spark.createDataFrame([], features).createOrReplaceTempView("features")
        with_spine(spark.sql(self.sql["evaluation"].text), "evaluation.sql")

    def _empty(self, spark: SparkSession) -> World:
        name, source = self.pipeline.events
        dimensions = {
            each: empty_like(spark, dimension_table(each, one)) for each, one in self.pipeline.dimensions.items()
        }
        return World(empty_like(spark, events_table(name, source)), dimensions)

    def _suites(self) -> list[str]:
        sources = [source.suite for source in self.pipeline.sources.values()]
        return list(dict.fromkeys((*sources, self.pipeline.features.suite, self.pipeline.scores.suite)))

    def _compare_suites(self) -> None:
        judged = [(source.suite, self._staged(name)) for name, source in self.pipeline.sources.items()]
        judged.append((self.pipeline.scores.suite, tuple(scores_table(self.pipeline.name).names)))
        if self.features is not None:
            judged.append((self.pipeline.features.suite, tuple(self.features.names)))
        for name, columns in judged:
            if name in self.suites:
                self.found += _unknown(self.suites[name], columns) or [
                    fine(f"suite {name}", f"{len(self.suites[name].checks)} expectations of columns that are there")
                ]

    def _staged(self, name: str) -> tuple[str, ...]:
        source = self.pipeline.sources[name]
        own = ("event_id", "event_time", "arrived_at") if source.kind == "events" else ("valid_from",)
        return (*own, *source.columns, *STAGED)


def _unknown(suite: Suite, columns: tuple[str, ...]) -> list[Finding]:
    return [
        faulty(
            f"suite {suite.name}",
            f"{suite.path}, line {check.line}: there is no column {column}; write one of {', '.join(columns)}",
        )
        for check in suite.checks
        for column in check.columns
        if column not in columns and check.type != "expect_column_to_exist"
    ]


def _spine(spark: SparkSession) -> pa.Table:
    return spark.createDataFrame([], "key string, as_of timestamp").toArrow()
