"""`make setup`: puts in place what is missing, and says so; nothing to do takes less than a second."""

import sys
import time
from pathlib import Path

from infra.setup import conf, jars, packages, programs
from infra.setup.errors import SetupError

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Run every step in order."""
    start = time.monotonic()
    (ROOT / "var").mkdir(exist_ok=True)
    packages.install(ROOT)
    java = programs.java()
    redis = programs.redis(ROOT / "var/venv")
    jars.install(ROOT, java)
    conf.render(ROOT, java, redis)
    print(f"set-up: everything is in place ({time.monotonic() - start:.1f} s)", flush=True)


if __name__ == "__main__":
    try:
        main()
    except SetupError as error:
        sys.exit(f"set-up: error: {error}")
