"""The report of a check: data docs of Great Expectations, a static site that a person opens."""

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from great_expectations.core.run_identifier import RunIdentifier
from great_expectations.data_context.types.resource_identifiers import (
    ExpectationSuiteIdentifier,
    ValidationResultIdentifier,
)

from expectations.engine import gx_suite, quiet_context
from expectations.suites import Suite

# Great Expectations takes its style and its icons from the network, which the reader of a report may not have.
STYLE = """<style>
body { font-family: sans-serif; margin: 1em 2em }
td, th { padding: .3em .8em; text-align: left; vertical-align: top; border-bottom: 1px solid #ccc }
.fa-times::before { content: "\\2717"; color: #b00 } .fa-check-circle::before { content: "\\2713"; color: #070 }
.fa-exclamation-triangle::before { content: "!"; color: #b60 }
</style>"""


def write_report(folder: Path, suite: Suite, result: Any, context: dict[str, str]) -> Path:
    """Build the site of one suite result in `folder`, in place of an older one, and return its first page.

    Raises:
        OSError: The folder cannot be written. Faults of Great Expectations' own pages come as they are.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    docs = quiet_context({"report": _site(folder)})
    name = suite.name.replace("/", ".")  # Great Expectations makes a path of it
    docs.suites.add(gx_suite(name, suite.checks))
    run = RunIdentifier(run_name=folder.name, run_time=datetime.now(UTC))
    result.suite_name = name
    result.meta |= {"run_id": run, "validation_time": run.run_time, **context}
    key = ExpectationSuiteIdentifier(name=name)
    docs.validation_results_store.store_validation_results(
        result, ValidationResultIdentifier(key, run, result.batch_id), key
    )
    docs.build_data_docs()
    for page in folder.rglob("*.html"):
        page.write_text(page.read_text(encoding="utf-8").replace("</head>", f"{STYLE}</head>", 1), encoding="utf-8")
    return _first_page(folder)


def _first_page(folder: Path) -> Path:
    """Lead straight to the result: the index of Great Expectations lists nothing without scripts from the network."""
    result = next((folder / "validations").rglob("*.html")).relative_to(folder).as_posix()
    index = folder / "index.html"
    index.write_text(f'<meta charset="utf-8"><meta http-equiv="refresh" content="0; url={quote(result)}">')
    return index


def _site(folder: Path) -> dict[str, Any]:
    return {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder)},
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }
