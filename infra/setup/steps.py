"""Steps that say what they do, and programs that must succeed."""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from infra.setup.errors import SetupError

TAIL_LINES = 15


@contextmanager
def step(text: str) -> Iterator[None]:
    """Say what begins, and in how many seconds it was done."""
    print(f"set-up: {text} ...", flush=True)
    start = time.monotonic()
    yield
    print(f"set-up: {text}: {time.monotonic() - start:.1f} s", flush=True)


def run(command: Sequence[str], remedy: str, cwd: Path | None = None) -> str:
    """Run a program and return what it wrote to its output.

    Raises:
        SetupError: it could not be started or failed; the end of what it wrote is shown first.
    """
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    except OSError as error:
        raise SetupError(f"cannot start {command[0]}: {error}: {remedy}") from error
    if done.returncode != 0:
        print("\n".join((done.stdout + done.stderr).splitlines()[-TAIL_LINES:]), file=sys.stderr)
        raise SetupError(
            f"{Path(command[0]).name} failed with exit code {done.returncode} (its last words above): {remedy}"
        )
    return done.stdout
