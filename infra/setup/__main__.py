"""`make setup`: puts in place what is missing, and says so; with nothing to do it only looks, and starts Java once."""

import fcntl
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.setup import archive, conf, jars, packages, programs
from infra.setup.errors import SetupError

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Run every step in order."""
    start = time.monotonic()
    (ROOT / "var").mkdir(exist_ok=True)
    with alone(ROOT / "var/setup.lock"):
        packages.install(ROOT)
        java = programs.java()
        redis = programs.redis(ROOT / "var")
        jars.install(ROOT, java)
        conf.render(ROOT, java, redis)
        archive.make(ROOT, java)
    print(f"set-up: everything is in place ({time.monotonic() - start:.1f} s)", flush=True)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait until no other set-up is at work here, and keep the next one waiting."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("set-up: another one is at work here: waiting for it ...", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    try:
        main()
    except SetupError as error:
        sys.exit(f"set-up: error: {error}")
