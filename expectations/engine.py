"""Great Expectations on one Spark frame: no progress bars, no analytics, nothing kept between two checks."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import great_expectations as gx
from great_expectations.data_context.types.base import (
    DataContextConfig,
    InMemoryStoreBackendDefaults,
    ProgressBarsConfig,
)
from great_expectations.execution_engine import SparkDFExecutionEngine
from great_expectations.validator.validator import Validator
from pyspark.sql import DataFrame

from expectations.suites import Check

BRIEF = {"result_format": "BASIC", "partial_unexpected_count": 0}
VALUES = ".unexpected_values"
ROWS = "rows"


class BriefEngine(SparkDFExecutionEngine):  # type: ignore[misc]  # reason: Great Expectations has no types
    """Judges a frame by one suite, with counts and without examples.

    To look for examples where there are none, Spark makes a plan for each expectation of a column.
    """

    def __init__(self, frame: DataFrame, checks: tuple[Check, ...]) -> None:
        super().__init__(spark=frame.sparkSession, persist=False, caching=False)
        self.load_batch_data(ROWS, frame)
        self.checks, self.validator = checks, _Validator(execution_engine=self, data_context=quiet_context())

    def judge(self) -> list[Any]:
        """Return a result of Great Expectations for each check."""
        wanted = [one.expectation.configuration for one in self.checks]
        return list(self.validator.graph_validate(wanted, runtime_configuration={"result_format": dict(BRIEF)}))

    def instead(self, metric: Any, own: Callable[..., Any]) -> Callable[..., Any]:
        """Return how a metric is computed that is not one of those aggregates which take one Spark job together."""
        return (lambda **_: []) if metric.metric_name.endswith(VALUES) else own

    def _build_direct_and_bundled_metric_computation_configurations(self, *args: Any, **kwargs: Any) -> Any:
        direct, bundled = super()._build_direct_and_bundled_metric_computation_configurations(*args, **kwargs)
        changed = [replace(one, metric_fn=self.instead(one.metric_configuration, one.metric_fn)) for one in direct]
        return changed, bundled


class _Validator(Validator):  # type: ignore[misc]  # reason: as above
    """Finds out once what a suite depends on: it is the same for all rows that are judged by it."""

    found: Any = None

    def _generate_metric_dependency_subgraphs_for_each_expectation_configuration(
        self, *args: Any, **kwargs: Any
    ) -> tuple[Any, list[Any], list[Any]]:
        if self.found is None:
            self.found = super()._generate_metric_dependency_subgraphs_for_each_expectation_configuration(
                *args, **kwargs
            )
        graphs, results, configurations = self.found
        return graphs, list(results), list(configurations)


def quiet_context(sites: dict[str, Any] | None = None) -> Any:
    """Return a context of Great Expectations that lives in memory and keeps silent; `sites` are its data docs."""
    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        data_docs_sites=sites,
        progress_bars=ProgressBarsConfig(globally=False, metric_calculations=False),
        analytics_enabled=False,
    )
    return gx.get_context(mode="ephemeral", project_config=config)


def gx_suite(name: str, checks: tuple[Check, ...]) -> Any:
    """Return the checks as a suite of Great Expectations, made anew because a suite binds its expectations."""
    return gx.ExpectationSuite(name, expectations=[check.expectation.configuration for check in checks])


def validate(frame: DataFrame, checks: tuple[Check, ...], examples: int) -> Any:
    """Validate the frame, and return the suite result of Great Expectations with `examples` values for each failure."""
    source = quiet_context().data_sources.add_spark("spark", persist=False)
    batch = source.add_dataframe_asset("rows").add_batch_definition_whole_dataframe("all")
    form = {"result_format": "SUMMARY", "partial_unexpected_count": examples}
    return batch.get_batch({"dataframe": frame}).validate(gx_suite("checks", checks), result_format=form)
