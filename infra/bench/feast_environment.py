"""Feast in an environment of its own: exactly what feast.lock names, verified by its hashes."""

import hashlib
import sys
from pathlib import Path

from infra.setup.packages import NETWORK
from infra.setup.steps import run, step

LOCK = Path(__file__).with_name("feast.lock")


def programs(folder: Path) -> Path:
    """Return the folder of the environment's programs, made below `folder` unless it is there.

    Raises:
        SetupError: the Python package index is out of reach.
    """
    home = folder / "feast"
    # Its programs name the folder, which may be moved.
    made_of = LOCK.read_bytes() + f"{sys.version} {home}".encode()
    stamp, wanted = home / "feast.txt", hashlib.sha256(made_of).hexdigest()
    if not stamp.is_file() or stamp.read_text() != wanted:
        uv = str(Path(sys.executable).with_name("uv"))
        with step(f"Feast, in an environment of its own below {folder.name} (about 450 MB)"):
            run([uv, "--quiet", "venv", "--clear", "--python", sys.executable, str(home)], NETWORK)
            place = ["--python", str(home / "bin/python")]
            run([uv, "--quiet", "pip", "sync", *place, "--require-hashes", str(LOCK)], NETWORK)
        stamp.write_text(wanted)
    return home / "bin"
