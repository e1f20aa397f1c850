"""The fallback of a generation: a declared constant, or the mean score of the population and of its segments."""

from pathlib import Path

import sqlglot
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from sqlglot import exp
from sqlglot.errors import SqlglotError

from jobs.errors import SqlRefused
from jobs.run import Run
from jobs.sqlfile import inexact_columns, naming
from jobs.sqlrules import Reads, refusals
from serving.head import Fallback

MOST_SEGMENTS = 1000  # they travel in the head, which is read for every request
LEAST_ROWS = 100  # of a segment; the mean of fewer says little
LONGEST_NAME = 64
# Exact, so that the order of rows does not matter; scores below 10^18 fit, and sums of 10^8 such.
MEAN = "CAST(avg(CAST(score AS DECIMAL(30, 12))) AS DOUBLE)"


def fallback_of(run: Run, scores: DataFrame) -> Fallback | None:
    """Return what an unknown key is answered with beside `scores` (key, score), or None where it is 404.

    Raises:
        SqlRefused: the expression of the segments is not one, could give another value the second time, can't be
            computed, or gives too many segments.
    """
    declared = run.pipeline.fallback
    if declared is None:
        return None
    if declared.score is not None:
        return Fallback(declared.kind, declared.score)
    mean = float(scores.agg(F.expr(MEAN)).collect()[0][0])
    return Fallback(declared.kind, mean, _segments(run, scores, declared.segments) if declared.segments else {})


def _segments(run: Run, scores: DataFrame, text: str) -> dict[str, float]:
    """Return the mean score of each segment that has enough rows, by its name."""
    path = run.settings.pipelines / f"{run.pipeline.name}.yaml"
    _refuse_segments(path, text, run)
    seen = run.lake.read(f"features/{run.pipeline.name}").where(f"as_of_date = DATE'{run.as_of.date()}'")
    with naming(path):
        named = seen.selectExpr("key", f"CAST(({text}) AS STRING) AS segment").where("segment IS NOT NULL")
        grouped = named.join(scores, "key").groupBy("segment").agg(F.count("*").alias("n"), F.expr(MEAN).alias("mean"))
        found = grouped.where(F.col("n") >= LEAST_ROWS).limit(MOST_SEGMENTS + 1).collect()
    if len(found) > MOST_SEGMENTS:
        raise SqlRefused(
            f"{path}: fallback.segments gives more than {MOST_SEGMENTS} segments of {LEAST_ROWS} rows; name fewer"
        )
    for row in found:
        if len(row.segment.encode()) > LONGEST_NAME:
            raise SqlRefused(
                f"{path}: fallback.segments gives {row.segment[:80]!r}; {LONGEST_NAME} bytes are the longest name"
            )
    return {row.segment: float(row["mean"]) for row in sorted(found, key=lambda row: row.segment)}


def _refuse_segments(path: Path, text: str, run: Run) -> None:
    """Refuse what is not one expression over the columns of a row, by the rules of the pipeline's SQL files."""
    query = _parsed(text)
    if query is None:
        raise SqlRefused(f"{path}: fallback.segments is not one SQL expression over the features' columns: {text}")
    for refusal in refusals(query, Reads(frozenset({"features"}), inexact_columns(run.pipeline))):
        raise SqlRefused(f"{path}: fallback.segments: {refusal}")


def _parsed(text: str) -> exp.Select | None:
    """Return a query of nothing but the expression `text`, of the columns of one row; None where it is no such."""
    try:
        query = sqlglot.parse_one(f"SELECT ({text}) AS segment FROM features", dialect="spark")  # noqa: S608  reason: it is parsed, not run
    except SqlglotError:
        return None
    if not isinstance(query, exp.Select) or query.find(exp.AggFunc, exp.Window, exp.Tuple):
        return None
    given = {name for name, value in query.args.items() if value}
    alone = given == {"expressions", "from_"} and len(query.expressions) == 1 == len(list(query.find_all(exp.Query)))
    return query if alone and query.expressions[0].alias == "segment" else None
