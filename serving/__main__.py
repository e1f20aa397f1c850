"""Run the lookup service: `python -m serving`."""

import sys

from granian import Granian
from granian.constants import Interfaces

from serving.errors import SettingsError
from serving.settings import settings

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {"_granian": {"level": "INFO"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
}
STOP_SECONDS = 10  # what a worker may take to finish its requests


def main() -> int:
    """Serve until stopped; settings that cannot be used end it at once with one line."""
    try:
        where = settings()
    except SettingsError as fault:
        sys.stderr.write(f"scoreline: error: {fault}\n")
        return 2
    server = Granian(
        "serving.service:create",
        factory=True,
        interface=Interfaces.ASGI,
        address=where.host,
        port=where.port,
        workers_kill_timeout=STOP_SECONDS,
        log_dictconfig=LOGGING,
    )
    server.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
