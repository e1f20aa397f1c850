"""The tables in analysts' hands: by name in DuckDB and in Spark, with views over them, without any service."""

from datetime import datetime
from typing import TYPE_CHECKING

from jobs.spec import load_pipelines, settings

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def lake(at: datetime | None = None) -> "DuckDBPyConnection":
    """Return a DuckDB connection that has each table KIND/NAME of the lake as KIND.NAME, and the views over them.

    It shows the lake as it is when it is opened. With `at`, in UTC where it has no offset, scores, quality and
    publications are as they stood then; what has no past is left out, and `now.` before a name is what stands now.

    Raises:
        DataFault: the lake of the settings has no table.
    """
    from jobs.analysts.connection import opened

    found = settings()
    return opened(found, list(load_pipelines(found.pipelines).values()), at)


__all__ = ["lake"]
