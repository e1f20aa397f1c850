"""Where rows come in: those of erased keys do not, neither as events nor as what was rejected."""

import logging
from dataclasses import dataclass, field
from functools import cached_property, reduce
from operator import or_

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, Observation
from pyspark.sql import functions as F

from jobs.erasure.tombstones import Tombstones
from jobs.spec import Settings

LOG = logging.getLogger(__name__)
REFUSED = "rows of erased keys"


@dataclass(frozen=True)
class Entrance:
    """The entrance of a source; rows have its columns, and raw text with `parse_fault` where they are no rows."""

    settings: Settings
    source: str
    _counted: list[Observation] = field(default_factory=list)

    def kept(self, rows: DataFrame) -> DataFrame:
        """Return staged rows without those of erased keys; `refused` counts them once these were computed."""
        barred = self._tombstones.of(self.source, rows.columns)
        if not barred:
            return rows
        self._counted.append(Observation())
        rejected = F.when(F.col("parse_fault").isNotNull(), F.col("raw"))
        marks = [mark for each in barred for mark in (each.is_in(F.col(each.entity_key)), each.is_shown(rejected))]
        marked = rows.withColumn("erased", reduce(or_, marks))
        watched = marked.observe(self._counted[0], F.count_if("erased").alias("rows"))
        return watched.where("NOT erased").drop("erased")

    @property
    def refused(self) -> dict[str, int]:
        """Return how many rows were of erased keys, where there are such."""
        return dict.fromkeys([REFUSED] * len(self._counted), sum(each.get["rows"] for each in self._counted))

    def let_in(self, rows: pa.Table) -> pa.Table:
        """Return typed messages without those of erased keys."""
        kept = rows
        for erased in self._tombstones.of(self.source, rows.column_names):
            told = zip(*(kept[name].to_pylist() for name in (erased.entity_key, "parse_fault", "raw")), strict=True)
            marked = [erased.has(key) or bool(fault and erased.shows(raw)) for key, fault, raw in told]
            kept = kept.filter(pc.invert(pa.array(marked, pa.bool_())))
        if len(kept) < len(rows):
            LOG.warning("%s: %d %s", self.source, len(rows) - len(kept), REFUSED)
        return kept

    @cached_property
    def _tombstones(self) -> Tombstones:
        return Tombstones(self.settings)
