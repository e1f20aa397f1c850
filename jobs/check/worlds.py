"""A pipeline's SQL over several sets of events, in one job."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.features import SPINE, features, labels, population, with_validity
from jobs.spec import Pipeline
from jobs.sqlfile import SqlFile, naming

WORLD = "world"


@dataclass(frozen=True)
class World:
    """What there is to be seen, were it so: events, rows of dimensions, and into how many parts Spark cuts them."""

    events: pa.Table
    dimensions: Mapping[str, pa.Table] = field(default_factory=dict)
    parts: int = 1


@dataclass(frozen=True)
class Probe:
    """Runs a pipeline's SQL over worlds of the same kind, all in one job."""

    spark: SparkSession
    pipeline: Pipeline

    def populations(self, sql: SqlFile, worlds: Mapping[str, World], as_ofs: Sequence[datetime]) -> dict[str, pa.Table]:
        """Return the spine (key, as_of) that population.sql gives in each world."""
        with naming(sql.path):
            return _collected(
                {name: population(self._events(world), as_ofs, sql.text) for name, world in worlds.items()}
            )

    def features(self, sql: SqlFile, worlds: Mapping[str, World], spine: pa.Table) -> dict[str, pa.Table]:
        """Return key, as_of and the features in each world."""
        with naming(sql.path):
            return _collected({name: self.features_in(sql, world, spine) for name, world in worlds.items()})

    def features_in(self, sql: SqlFile, world: World, spine: pa.Table) -> DataFrame:
        """Return the query of the features in one world."""
        key = self.pipeline.entity_key
        known = {name: with_validity(self.spark.createDataFrame(rows), key) for name, rows in world.dimensions.items()}
        asked = self.spark.createDataFrame(spine).repartition(world.parts)
        return features(self._events(world), asked, known, sql.text)

    def labels(self, sql: SqlFile, worlds: Mapping[str, World], spine: pa.Table) -> dict[str, pa.Table]:
        """Return key, as_of and label in each world."""
        asked, horizon = self.spark.createDataFrame(spine), self.pipeline.label.horizon_days
        with naming(sql.path):
            return _collected(
                {name: labels(self._events(world), asked, sql.text, horizon) for name, world in worlds.items()}
            )

    def _events(self, world: World) -> DataFrame:
        return self.spark.createDataFrame(world.events).repartition(world.parts)


def _collected(frames: Mapping[str, DataFrame]) -> dict[str, pa.Table]:
    """Return what each query gives, ordered by (key, as_of)."""
    tagged = [frame.select(F.lit(name).alias(WORLD), "*") for name, frame in frames.items()]
    found = reduce(DataFrame.unionByName, tagged).toArrow()
    order = [(name, "ascending") for name in SPINE]
    return {
        name: found.filter(pc.equal(found[WORLD], name)).drop_columns([WORLD]).sort_by(order).combine_chunks()
        for name in frames
    }
