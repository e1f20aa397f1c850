"""What is wrong with each row, by the very conditions that Great Expectations counts."""

from dataclasses import dataclass
from functools import cached_property, reduce
from operator import and_, or_
from typing import Any

from great_expectations.execution_engine import SparkDFExecutionEngine
from great_expectations.execution_engine.sparkdf_batch_data import SparkDFBatchData
from great_expectations.expectations.registry import get_metric_kwargs
from great_expectations.validator.metrics_calculator import MetricsCalculator
from great_expectations.validator.validation_graph import MetricConfiguration
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from expectations.errors import CheckBroken
from expectations.findings import exceptions
from expectations.suites import Check, Suite

# They compare rows with each other: of two equal rows neither is at fault by itself, so only the gate judges them.
ABOUT_SEVERAL_ROWS = frozenset(
    {"column_values.unique", "column_values.increasing", "column_values.decreasing", "compound_columns.unique"}
)


@dataclass(frozen=True)
class RowRules:
    """The critical row-level expectations of a suite as Spark conditions, for any frame with the same columns.

    A row is at fault exactly if Great Expectations counts it as unexpected: NULL breaks nothing but an expectation
    about NULL, and rows outside a `row_condition` or inside an `ignore_row_if` break nothing. `mostly` plays no part.
    """

    conditions: tuple[Column, ...]
    reasons: tuple[Column, ...]

    @classmethod
    def of(cls, frame: DataFrame, suite: Suite) -> "RowRules":
        """Return the rules for frames like `frame`; what they depend on beside a row, such as a mean, is taken of it.

        Raises:
            CheckBroken: Great Expectations has no such condition on Spark, or the rows lack a column of it.
        """
        checks = [check for check in suite.checks if check.is_critical and _is_about_a_row(check)]
        return cls(tuple(_broken(frame, checks)), tuple(map(_reason, checks)))

    @cached_property
    def broken(self) -> Column:
        """Whether a row breaks any rule: cheaper than to say which."""
        return F.coalesce(reduce(or_, self.conditions, F.lit(False)), F.lit(False))  # noqa: FBT003  reason: SQL's false

    def judged(self, frame: DataFrame) -> DataFrame:
        """Add `faults array<string>`: for each rule that a row breaks, which and by what value."""
        faults = [F.when(broken, reason) for broken, reason in zip(self.conditions, self.reasons, strict=True)]
        return frame.withColumn("faults", F.array_compact(F.array(*faults)).cast("array<string>"))


def _is_about_a_row(check: Check) -> bool:
    metric = getattr(check.expectation, "map_metric", None)
    return metric is not None and metric not in ABOUT_SEVERAL_ROWS


def _broken(frame: DataFrame, checks: list[Check]) -> list[Column]:
    """Resolve all conditions at once: what they depend on, such as a row count, is one Spark job for all."""
    engine = SparkDFExecutionEngine(spark=frame.sparkSession, persist=False)
    engine.load_batch_data("rows", frame)
    metrics = [_condition(check) for check in checks]
    resolved, aborted = MetricsCalculator(engine).compute_metrics(metrics)
    for check, metric in zip(checks, metrics, strict=True):
        if metric.id not in resolved:
            why = "; ".join(exceptions(aborted)) or "Great Expectations does not say why"
            raise CheckBroken(f"suite line {check.line}: {check.type} gives no condition of a row: {why}")
    return [_in_domain(engine, frame.schema, *resolved[metric.id]) for metric in metrics]


def _condition(check: Check) -> Any:
    name = f"{check.expectation.map_metric}.condition"
    kwargs = get_metric_kwargs(name, check.expectation.configuration)
    return MetricConfiguration(name, kwargs["metric_domain_kwargs"], kwargs["metric_value_kwargs"])


class _Filters:
    """Stands in for a frame while Great Expectations filters it, and keeps the conditions."""

    def __init__(self, schema: StructType) -> None:
        self.schema = schema
        self.conditions: list[Column] = []

    def filter(self, condition: Column | str) -> "_Filters":
        self.conditions.append(F.expr(condition) if isinstance(condition, str) else condition)
        return self


def _in_domain(
    engine: Any, schema: StructType, condition: Column, compute: dict[str, Any], accessor: dict[str, Any]
) -> Column:
    """Join the condition with those of its domain: `row_condition`, `ignore_row_if`, NULL."""
    filters = _Filters(schema)
    narrowing = SparkDFExecutionEngine(spark=engine.spark, persist=False)
    narrowing.load_batch_data("rows", SparkDFBatchData(narrowing, filters))
    narrowing.get_domain_records({**compute, **accessor, "batch_id": "rows"})
    return reduce(and_, [*filters.conditions, condition])


def _reason(check: Check) -> Column:
    values = [
        F.concat(F.lit(f"{name}="), F.coalesce(F.col(name).cast("string"), F.lit("NULL"))) for name in check.columns
    ]
    return F.concat(F.concat_ws(", ", *values), F.lit(f" breaks {check.type}({check.expected})"))
