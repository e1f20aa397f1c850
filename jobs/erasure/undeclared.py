"""What pipelines and sources have left that nobody declares any more: an erasure knows nothing of their keys."""

from collections.abc import Mapping
from pathlib import Path

from jobs.erasure.reports import reported
from jobs.erasure.rows import OF_PIPELINES
from jobs.errors import UndeclaredData
from jobs.lake import Lake
from jobs.spec import Pipeline
from serving.store import Store

OF_SOURCES = ("events", "dimensions", "quarantine")


def refuse_undeclared(lake: Lake, store: Store, reports: Path, declared: Mapping[str, Pipeline]) -> None:
    """Refuse to erase a key everywhere where lake, Redis or the folder of reports have data of what is not declared.

    Raises:
        UndeclaredData: they have.
    """
    sources = {name for pipeline in declared.values() for name in pipeline.sources}
    known = {f"{kind}/{name}" for kind in OF_SOURCES for name in sources}
    known |= {f"{kind}/{name}" for kind in (*OF_PIPELINES, "staging", "streams") for name in declared}
    kinds = ",".join((*OF_SOURCES, *OF_PIPELINES, "staging", "streams"))
    there = ("/".join(path.split("/")[-2:]) for path in lake.files.folders(f"{{{kinds}}}/*"))
    found = [name for name in there if name not in known]
    found += [f"{name} (in Redis)" for name in store.pipelines() if name not in declared]
    found += [f"{name} (in {reports})" for name in reported(reports) if name not in declared]
    if found:
        raise UndeclaredData(
            f"no pipeline declares {', '.join(found)}, which may have the key: declare them again while you erase, or "
            "remove what they have left in the lake, in Redis and among the reports"
        )
