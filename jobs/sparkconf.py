"""Where Spark's configuration is, for jobs that start it; read before there is a session."""

from os import environ  # noqa: TID251  reason: Spark's variable, which it reads where it is started
from pathlib import Path

FOLDER = "SPARK_CONF_DIR"


def of_long_jobs() -> dict[str, str]:
    """Return the environment for a job of many minutes: Spark reads the folder `long` of its own, if there is one.

    The embedded default has: short jobs start faster with the quick compiler, long ones are twice as fast with all.
    """
    long = Path(environ.get(FOLDER, "")) / "long"
    return {**environ, FOLDER: str(long)} if (long / "spark-defaults.conf").is_file() else dict(environ)


def be_long() -> None:
    """Let Spark read that, where this process is about to start it."""
    environ.update(of_long_jobs())
