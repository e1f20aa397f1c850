"""The training set: point-in-time features and mature labels over many as_of dates, computed in one pass."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from jobs.errors import FrameFault, TooLittleHistory
from jobs.features import SPINE, feature_names, labels, with_spine
from jobs.scoring import Matrix
from jobs.spec import Pipeline, Settings
from jobs.spec.pipeline import LabelRef
from jobs.sqlfile import SqlFile, naming, pipeline_sql
from jobs.training.split import Split

# scikit-learn trains on one machine: beyond this many rows a fixed share of the entity keys is taken.
MAX_ROWS = 2_000_000
SHARES = 1_000
FEWEST_OF_A_CLASS = 20
EVALUATION, ROWS_OF = "evaluation_", "rows of "


@dataclass(frozen=True)
class Queries:
    """The SQL of a training set. `evaluation` may be missing: then there are no slices and no baselines to speak of."""

    population: SqlFile
    features: SqlFile
    labels: SqlFile
    evaluation: SqlFile | None

    @property
    def digests(self) -> dict[str, str]:
        """The SHA-256 of each file, by its kind."""
        return {kind: file.digest for kind, file in vars(self).items() if file is not None}


@dataclass(frozen=True)
class Period:
    """The rows of one part of the split, n in all, ordered by as_of and key."""

    matrix: Matrix
    labels: NDArray[np.int8]
    entity: NDArray[np.int64]
    as_of: NDArray[np.datetime64]
    recency: NDArray[np.float64]
    frequency: NDArray[np.float64]
    groups: Mapping[str, NDArray[Any]]

    def __add__(self, other: "Period") -> "Period":
        """Return the rows of this period, then those of the other."""
        mine, theirs = vars(self), vars(other)
        arrays = {name: np.concatenate([mine[name], theirs[name]]) for name in mine if name != "groups"}
        groups = {name: np.concatenate([self.groups[name], other.groups[name]]) for name in self.groups}
        return Period(**arrays, groups=groups)


def read_queries(settings: Settings, pipeline: Pipeline) -> Queries:
    """Return the pipeline's SQL files.

    Raises:
        SqlRefused: one is missing or does what its contract forbids.
    """
    read = {kind: pipeline_sql(settings, pipeline, kind) for kind in ("population", "features", "labels")}
    judges = settings.sql(pipeline.name, "evaluation").is_file()
    return Queries(**read, evaluation=pipeline_sql(settings, pipeline, "evaluation") if judges else None)


def visible(events: DataFrame, as_of: datetime) -> DataFrame:
    """Return the events that had happened and were delivered at `as_of`: all that a training may know."""
    return events.where((F.col("event_time") < F.lit(as_of)) & (F.col("arrived_at") <= F.lit(as_of)))


def sampled(spine: DataFrame, rows: int) -> DataFrame:
    """Return `spine`, of `rows` rows, or the rows of a fixed share of its keys where there are more than MAX_ROWS."""
    if rows <= MAX_ROWS:
        return spine
    share = max(1, SHARES * MAX_ROWS // rows)
    return spine.where(F.expr(f"pmod(xxhash64('sample', key), {SHARES}) < {share}"))


def evaluated(seen: DataFrame, queries: Queries) -> dict[str, DataFrame]:
    """Return what evaluation.sql makes of `seen` (key, as_of, features), each column prefixed, by its name if it is.

    Raises:
        SqlRefused, FrameFault: Spark refuses the query, or it gives no spine.
    """
    if queries.evaluation is None:
        return {}
    seen.createOrReplaceTempView("features")
    with naming(queries.evaluation.path):
        found = with_spine(seen.sparkSession.sql(queries.evaluation.text), "evaluation.sql")
    return {"evaluation.sql": found.withColumnsRenamed({name: EVALUATION + name for name in feature_names(found)})}


def labelled(seen: DataFrame, events: DataFrame, queries: Queries, label: LabelRef) -> dict[str, DataFrame]:
    """Return the labels of the rows of `seen`, by the name of what made them.

    Raises:
        SqlRefused, FrameFault: Spark refuses the query, or it gives no spine or label.
    """
    with naming(queries.labels.path):
        found = labels(events, seen.select(*SPINE), queries.labels.text, label.horizon_days)
    return {"labels.sql": found}


def joined(spine: DataFrame, found: Mapping[str, DataFrame]) -> DataFrame:
    """Return the rows of `spine` with the columns of all frames of `found`, and how many rows each maker gave for it.

    The counts are columns called `rows of <maker>`, for `collect` to look at: the join and they take one shuffle.
    """
    frame = _counted(spine, "population.sql")
    for maker, made in found.items():
        frame = frame.join(_counted(made, maker), list(SPINE), "left")
    return frame


def _counted(frame: DataFrame, maker: str) -> DataFrame:
    return frame.withColumn(ROWS_OF + maker, F.count("*").over(Window.partitionBy(*SPINE)))


def collect(frame: DataFrame, names: Sequence[str], split: Split) -> dict[str, Period]:
    """Return the parts of `split` from what `joined` gave: key, as_of, label, features `names`, evaluation columns.

    Raises:
        FrameFault: a maker gave none or several rows for a row of the spine, or a label is neither 0 nor 1.
        TooLittleHistory: a part has too few rows of a label to learn or to judge anything.
    """
    # One order, for trees sum in the order of their rows.
    ordered = frame.withColumn("entity", F.xxhash64("key")).orderBy("as_of", "key")
    table = _checked(ordered.toArrow())
    instants = table["as_of"].cast(pa.timestamp("us")).to_numpy()
    periods = {}
    for part, dates in split.parts.items():
        wanted = np.isin(instants, [np.datetime64(date.replace(tzinfo=None), "us") for date in dates])
        periods[part] = _period(table.filter(pa.array(wanted)), names)
        _refuse_one_sided(part, periods[part])
    return periods


def _checked(table: pa.Table) -> pa.Table:
    """Return the table without key and counts: had a query added or left out rows, training would learn of others."""
    counts = [name for name in table.column_names if name.startswith(ROWS_OF)]
    for name in counts:
        given = pc.fill_null(table[name], 0).to_numpy()
        what = f"{name.removeprefix(ROWS_OF)} gave {{}} rows"
        _refuse_any(table, given, given != 1, what + " for {}; give one for each key and as_of of the spine")
    label = table["label"].cast(pa.string()).fill_null("NULL").to_numpy()
    _refuse_any(table, label, ~np.isin(label, ("0", "1")), "labels.sql gave the label {} for {}; give 0 or 1")
    return table.drop_columns(["key", *counts])


def _refuse_any(table: pa.Table, values: NDArray[Any], wrong: NDArray[np.bool_], message: str) -> None:
    for place in np.flatnonzero(wrong)[:1]:
        row = table.select(list(SPINE)).slice(place, 1).to_pylist()[0]
        raise FrameFault(message.format(values[place], f"key {row['key']} at {row['as_of']}"))


def _period(table: pa.Table, names: Sequence[str]) -> Period:
    matrix = np.empty((table.num_rows, len(names)), np.float64)
    for column, name in enumerate(names):
        matrix[:, column] = table[name].cast(pa.float64()).to_numpy()
    given = {name.removeprefix(EVALUATION): table[name] for name in table.column_names if name.startswith(EVALUATION)}
    zeros = pa.array(np.zeros(table.num_rows))
    return Period(
        matrix,
        table["label"].to_numpy().astype(np.int8),
        table["entity"].to_numpy(),
        table["as_of"].cast(pa.timestamp("us")).to_numpy(),
        given.pop("recency_days", zeros).cast(pa.float64()).to_numpy(zero_copy_only=False),
        given.pop("frequency", zeros).cast(pa.float64()).to_numpy(zero_copy_only=False),
        {name: column.to_numpy() for name, column in given.items()},
    )


def _refuse_one_sided(part: str, period: Period) -> None:
    positive = int(period.labels.sum())
    if min(positive, len(period.labels) - positive) < FEWEST_OF_A_CLASS:
        raise TooLittleHistory(
            f"the {part} period has {len(period.labels)} rows of which {positive} have the label 1; at least "
            f"{FEWEST_OF_A_CLASS} of each are needed: load more history, or change training in the pipeline's YAML"
        )
