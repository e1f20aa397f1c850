"""From a spine to fresh scores: the features of the batch, their row-level rules, the segment, and the pinned model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
from pyspark.sql import DataFrame, Observation
from pyspark.sql import functions as F

from expectations.rows import RowRules
from jobs.features import feature_names, features
from jobs.registry import VerifiedArtefact
from jobs.sqlfile import SqlFile, naming

FAULTY = "size(faults) > 0"

# Takes a frame with key, as_of and features, the model and the names of its features; gives key, as_of and score.
Scoring = Callable[[DataFrame, bytes, Sequence[str]], pa.Table]


@dataclass(frozen=True)
class Scored:
    """What came of a spine: scores (key, as_of, score), and the rows of features that broke a rule.

    `quarantined` has key, as_of, reasons and features (JSON).
    """

    scores: pa.Table
    quarantined: pa.Table | None

    def each(self, change: Callable[[pa.Table], pa.Table]) -> "Scored":
        """Return both as `change` makes them."""
        return Scored(change(self.scores), None if self.quarantined is None else change(self.quarantined))


@dataclass(frozen=True)
class Recipe:
    """How the keys of a pipeline are scored between two runs: SQL, rules, segment and model."""

    sql: SqlFile
    rules: Callable[[DataFrame], RowRules]
    segment: str
    artefact: VerifiedArtefact

    def scored(
        self, events: DataFrame, spine: DataFrame, dimensions: Mapping[str, DataFrame], scoring: Scoring
    ) -> Scored:
        """Return the fresh scores of a spine, in one Spark job where no row breaks a rule.

        Each transform of a frame has Spark analyse all of it again, so that there are few.

        Raises:
            FrameFault: features.sql gives other columns than it should, or lacks one of the model's.
            SqlRefused: the segment is no condition over the features.
        """
        with naming(self.sql.path):
            seen = features(events, spine, dimensions, self.sql.text)
        rules, broken = self.rules(seen), Observation()
        watched = seen.observe(broken, F.count_if(rules.broken).alias("rows"))
        kept = watched.where(~rules.broken & F.expr(self.segment))
        scores = scoring(kept, self.artefact.blob, self.artefact.version.features)
        return Scored(scores, _quarantined(rules.judged(seen)) if broken.get["rows"] else None)


def _quarantined(judged: DataFrame) -> pa.Table:
    names = feature_names(judged.drop("faults"))
    return (
        judged.where(FAULTY)
        .select("key", "as_of", F.col("faults").alias("reasons"), F.to_json(F.struct(*names)).alias("features"))
        .toArrow()
    )
