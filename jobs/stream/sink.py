"""Where fresh scores go: the overlay in Redis first, then the tables, each once for each part of a micro-batch."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import functions as F

from jobs.registry import ModelVersion
from jobs.run import CHAMPION
from jobs.stream.scored import Scored
from jobs.stream.site import Site
from jobs.stream.tail import Tail
from serving.head import Head
from serving.overlay import Fresh, OverlayStore


@dataclass(frozen=True)
class Origin:
    """What scores were made from and by whom: it is written on every row of them."""

    model: ModelVersion
    dimension_versions: dict[str, int]
    run_id: str


def overlay_write(overlay: OverlayStore, head: Head, scores: pa.Table) -> int:
    """Write scores (key, as_of, score, events_version) to the overlay of the head's epoch.

    Returns how many are the newest there.
    """
    keys, scored, versions = scores["key"].to_pylist(), scores["score"].to_numpy(), scores["events_version"].to_pylist()
    as_ofs = pc.cast(scores["as_of"], pa.int64()).to_numpy()
    rows = zip(keys, as_ofs.tolist(), scored.astype(np.float64).tolist(), versions, strict=True)
    return overlay.write(head, [Fresh(key, as_of, (score,), version) for key, as_of, score, version in rows])


def score_rows(scores: pa.Table, origin: Origin, now: datetime) -> pa.Table:
    """Return scores (key, as_of, score, events_version) with what every row of a scores table carries."""
    count = len(scores)

    def constant(value: object, kind: pa.DataType) -> pa.Array:
        return pa.array([value] * count, kind)  # `pa.repeat` cannot make none of a map

    versions = pa.map_(pa.string(), pa.int64())
    return pa.table(
        {
            "key": scores["key"],
            "score": scores["score"],
            "as_of": scores["as_of"],
            "as_of_date": pc.cast(scores["as_of"], pa.date32()),
            "arm": constant(CHAMPION, pa.string()),
            "model_name": constant(origin.model.name, pa.string()),
            "model_version": constant(origin.model.version, pa.string()),
            "model_digest": constant(origin.model.digest, pa.string()),
            "events_version": scores["events_version"],
            "dimension_versions": constant(list(origin.dimension_versions.items()), versions),
            "run_id": constant(origin.run_id, pa.string()),
            "scored_at": constant(now, pa.timestamp("us", "UTC")),
        }
    )


def quarantine_rows(rows: pa.Table, origin: Origin) -> pa.Table:
    """Return quarantined rows (key, as_of, reasons, features, events_version) with what they were made from."""
    constants = {
        "model_name": (origin.model.name, pa.string()),
        "model_version": (origin.model.version, pa.string()),
        "run_id": (origin.run_id, pa.string()),
    }
    for name, (value, kind) in constants.items():
        rows = rows.append_column(name, pa.repeat(pa.scalar(value, kind), len(rows)))
    return rows


class Sink:
    """The overlay and the table of a pipeline's fresh scores."""

    def __init__(self, site: Site) -> None:
        self.site, self.overlay = site, OverlayStore(site.store)
        self.live = AppendOnly(site.settings.table(f"scores_live/{site.pipeline.name}"))
        self.quarantine = AppendOnly(site.settings.table(f"quarantine_live/{site.pipeline.name}"))
        self.keys = self.quarantined = 0  # since the process began

    def write(self, head: Head, found: Scored, origin: Origin, transaction: tuple[str, int]) -> None:
        """Write fresh scores: Redis first, so that they are read at once; a killed process writes the table later."""
        overlay_write(self.overlay, head, found.scores)
        self._keep(found, origin, transaction)

    def write_anew(self, head: Head, found: Scored, origin: Origin, app_id: str) -> None:
        """Write scores that may have been written before: of those the tables get no second row."""
        overlay_write(self.overlay, head, found.scores)
        name, bad = self.site.pipeline.name, found.quarantined
        scores = self._without(found.scores, f"scores_live/{name}", head)
        quarantined = None if bad is None else self._without(bad, f"quarantine_live/{name}", head)
        self._keep(Scored(scores, quarantined), origin, (app_id, 0))

    def _keep(self, found: Scored, origin: Origin, transaction: tuple[str, int]) -> None:
        self.live.append_once(score_rows(found.scores, origin, self.site.clock.now()), *transaction)
        self.keys += len(found.scores)
        if found.quarantined is not None:
            self.quarantine.append_once(quarantine_rows(found.quarantined, origin), *transaction)
            self.quarantined += len(found.quarantined)

    def _without(self, rows: pa.Table, table: str, head: Head) -> pa.Table:
        """Return the rows that the table has not, by the head's model."""
        if not len(rows):
            return rows
        since = F.col("as_of") >= F.lit(pc.min(rows["as_of"]).as_py())
        model = (F.col("model_name") == head.model.name) & (F.col("model_version") == head.model.version)
        there = self.site.lake.read(table).where(since & model).select("key", "as_of", "events_version")
        given = self.site.lake.spark.createDataFrame(rows)
        return given.join(there, ["key", "as_of", "events_version"], "left_anti").select(*rows.column_names).toArrow()


class AppendOnly:
    """A Delta table at `path` that small appends go to, without Spark: a commit takes it milliseconds."""

    def __init__(self, path: str) -> None:
        self.tail = Tail(path)

    def append_once(self, rows: pa.Table, app_id: str, version: int) -> bool:
        """Append rows unless `app_id` has written `version` or a later one before; return whether it did now.

        Raises:
            Fenced: others appended at the same moment, again and again.
        """
        if not len(rows):
            return False
        tail = self.tail
        return bool(tail.commit(lambda: None if tail.has_written(app_id, version) else (rows, {app_id: version})))
