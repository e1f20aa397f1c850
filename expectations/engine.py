"""Great Expectations on one Spark frame: no progress bars, no analytics, nothing kept between two checks."""

from typing import Any

import great_expectations as gx
from great_expectations.data_context.types.base import (
    DataContextConfig,
    InMemoryStoreBackendDefaults,
    ProgressBarsConfig,
)
from pyspark.sql import DataFrame

from expectations.suites import Check

# With 0 examples it takes the Spark jobs of BOOLEAN_ONLY (reading no value is no job), and gives the counts as well.
BRIEF = {"result_format": "BASIC", "partial_unexpected_count": 0}


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
    form = {"result_format": "SUMMARY", "partial_unexpected_count": examples} if examples else dict(BRIEF)
    return batch.get_batch({"dataframe": frame}).validate(gx_suite("checks", checks), result_format=form)
