"""Where rows come in: those of erased keys do not, neither as events nor as what was rejected."""

import logging
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, Observation
from pyspark.sql import functions as F

from jobs.erasure.tombstones import Erased, Tombstones
from jobs.spec import Settings

LOG = logging.getLogger(__name__)
REFUSED = "rows of erased keys"


@dataclass(frozen=True)
class Entrance:
    """The entrance of a source; rows have the entity key, and raw text with `parse_fault` where they are no rows."""

    settings: Settings
    source: str
    entity_key: str
    _counted: list[Observation] = field(default_factory=list)

    def kept(self, rows: DataFrame) -> DataFrame:
        """Return staged rows without those of erased keys; `refused` counts them once these were computed."""
        erased = self._erased
        if erased is None:
            return rows
        self._counted.append(Observation())
        shown = F.coalesce(erased.is_shown(F.when(F.col("parse_fault").isNotNull(), F.col("raw"))), F.lit(False))  # noqa: FBT003  reason: SQL's false
        marked = rows.withColumn("erased", erased.is_in(F.col(self.entity_key)) | shown)
        watched = marked.observe(self._counted[0], F.count_if("erased").alias("rows"))
        return watched.where("NOT erased").drop("erased")

    @property
    def refused(self) -> dict[str, int]:
        """Return how many rows were of erased keys, where there are such."""
        return dict.fromkeys([REFUSED] * len(self._counted), sum(each.get["rows"] for each in self._counted))

    def let_in(self, rows: pa.Table) -> pa.Table:
        """Return typed messages without those of erased keys."""
        erased = self._erased
        if erased is None:
            return rows
        told = zip(*(rows[name].to_pylist() for name in (self.entity_key, "parse_fault", "raw")), strict=True)
        marked = pa.array(
            [erased.has(key) or bool(fault and erased.shows(raw)) for key, fault, raw in told], pa.bool_()
        )
        refused = pc.sum(marked).as_py() or 0
        if refused:
            LOG.warning("%s: %d %s", self.source, refused, REFUSED)
        return rows.filter(pc.invert(marked))

    @property
    def _erased(self) -> Erased | None:
        return Tombstones(self.settings).of(self.source, self.entity_key)
