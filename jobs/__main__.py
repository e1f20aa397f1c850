"""`python -m jobs`, which is what Spark runs."""

import ctypes
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1  # prctl(2)


def die_with_parent() -> None:
    """Let Linux end this process when the JVM that started it is killed: no zombie of a killed task writes on."""
    started_by_spark = "PYSPARK_GATEWAY_PORT" in os.environ  # noqa: TID251  reason: it is Spark's, no setting
    if sys.platform == "linux" and started_by_spark:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    # As a script its own folder comes first, in which a module could stand before a library of its name.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]
    die_with_parent()
    from jobs.cli import main

    main()
