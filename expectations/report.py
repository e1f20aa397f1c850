"""The report of a check: data docs of Great Expectations, a static site that a person opens."""

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from great_expectations.core.run_identifier import RunIdentifier
from great_expectations.data_context.types.resource_identifiers import (
    ExpectationSuiteIdentifier,
    ValidationResultIdentifier,
)

from expectations.engine import gx_suite, quiet_context
from expectations.suites import Suite


def write_report(folder: Path, suite: Suite, result: Any, context: dict[str, str]) -> Path:
    """Build the site of one suite result in `folder`, in place of an older one, and return its first page.

    Raises:
        OSError: The folder cannot be written.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    docs = quiet_context({"report": _site(folder)})
    docs.suites.add(gx_suite(suite.name, suite.checks))
    run = RunIdentifier(run_name=folder.name, run_time=datetime.now(UTC))
    result.suite_name = suite.name
    result.meta |= {"run_id": run, "validation_time": run.run_time, **context}
    key = ExpectationSuiteIdentifier(name=suite.name)
    docs.validation_results_store.store_validation_results(
        result, ValidationResultIdentifier(key, run, result.batch_id), key
    )
    docs.build_data_docs()
    return folder / "index.html"


def _site(folder: Path) -> dict[str, Any]:
    return {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder)},
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }
