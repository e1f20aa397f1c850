"""Up and down: starts what is not running, waits until all is well, stops exactly what was started."""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from uuid import uuid4

from infra.embedded import airflow_home, scheduler
from infra.embedded.environment import environment, variables, write_shell
from infra.embedded.errors import EmbeddedError, ServiceFailed
from infra.embedded.places import LOGS, RUN, VAR, Ports, choose_ports
from infra.embedded.processes import MARK, Started, recorded, start, stop_all
from infra.embedded.services import Service, airflow, stores

PATIENCE_S = 180.0
SAYS_LINES = 8
RUNTIME = RUN / "runtime" 

Tell = Callable[[str], None]


@contextmanager
def alone() -> Iterator[None]:
    """Keep a second `up` or `down` out while one is at work.

    Raises:
        EmbeddedError: another one is at work.
    """
    RUN.mkdir(parents=True, exist_ok=True)
    with (RUN / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise EmbeddedError("another `up`, `down` or `demo` is at work here: let it finish") from error
        yield
