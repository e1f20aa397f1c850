"""Logging of the command line: for people in a terminal, plain lines in a log."""

import logging
import sys

from rich.console import Console
from rich.logging import RichHandler

QUIET = ("py4j", "matplotlib", "great_expectations", "mlflow", "alembic", "urllib3", "skops", "fontTools")


def configure_logging() -> None:
    """Send log lines to stderr: with colours in a terminal, plain and with a time elsewhere."""
    if sys.stderr.isatty():
        console = Console(stderr=True)
        handler: logging.Handler = RichHandler(console=console, show_path=False, omit_repeated_times=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
