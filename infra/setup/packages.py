"""The virtual environment: exactly what the lock names, verified by its hashes, and the project itself, editable."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from infra.setup.errors import SetupError
from infra.setup.steps import run, step

LOCK = "requirements.lock"
STAMP = "scoreline-packages.txt"
NETWORK = "check that this machine reaches its Python package index, then run it again"


def install(root: Path) -> bool:
    """Bring `var/venv` to what the lock says; False when it is there already.

    Raises:
        SetupError: services run from what is there, and it has to change.
    """
    home = root / "var/venv"
    wanted = fingerprint(root)
    stamp = home / STAMP
    if stamp.is_file() and stamp.read_text() == wanted:
        return False
    refuse_under_services(root)
    create(home)
    bootstrap(root, home)
    fill(root, home)
    stamp.write_text(wanted)
    return True


def refuse_under_services(root: Path) -> None:
    """Refuse to change the packages while services run from them.

    Raises:
        SetupError: a process that is on record as a service lives.
    """
    records = (root / "var/run/services").glob("*.json")
    living = [path.stem for path in sorted(records) if lives(path)]
    if living:
        raise SetupError(f"var/venv is not what {LOCK} says, but {', '.join(living)} run from it: `make down` first")


def lives(record: Path) -> bool:
    """Tell whether the process of a service's record lives; one that cannot be read names none."""
    try:
        os.kill(int(json.loads(record.read_text())["pid"]), 0)
    except PermissionError:
        return True
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return True


def fingerprint(root: Path) -> str:
    """Digest of what the environment is made from: lock, project file, interpreter and place."""
    digest = hashlib.sha256()
    for part in (LOCK, "pyproject.toml"):
        digest.update((root / part).read_bytes())
    digest.update(f"{sys.executable} {sys.version} {root}".encode())
    return digest.hexdigest()


def create(home: Path) -> None:
    """Make the environment anew when it is missing, broken, or of another Python or place."""
    origin = home / "scoreline-origin.json"
    wanted = {"python": sys.executable, "version": sys.version, "place": str(home)}
    if origin.is_file() and json.loads(origin.read_text()) == wanted and (home / "bin/python").exists():
        return
    with step(f"virtual environment in var/venv (Python {sys.version.split()[0]})"):
        shutil.rmtree(home, ignore_errors=True)
        venv.create(home, with_pip=True)
    origin.write_text(json.dumps(wanted))


def bootstrap(root: Path, home: Path) -> None:
    """Install uv, in the locked version, by the pip that came with Python."""
    if starts(home / "bin/uv"):
        return
    with step("uv, the package installer"):
        slice_ = home / "uv.txt"
        slice_.write_text(entry((root / LOCK).read_text(), "uv"))
        pip = [str(home / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        run([*pip, "--force-reinstall", "--require-hashes", "--requirement", str(slice_)], NETWORK)


def starts(program: Path) -> bool:
    """Tell whether a program is there whole: one that was cut off does not say its version."""
    try:
        return subprocess.run([program, "--version"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def fill(root: Path, home: Path) -> None:
    """Install the locked packages and the project; what builds them comes from the lock as well."""
    uv = [str(home / "bin/uv"), "--quiet", "pip"]
    place = ["--python", str(home / "bin/python"), "--build-constraint", LOCK]
    count = sum("==" in line for line in (root / LOCK).read_text().splitlines())
    with step(f"{count} Python packages from {LOCK} (first time about 1 GB)"):
        run([*uv, "sync", *place, "--require-hashes", "--compile-bytecode", LOCK], NETWORK, cwd=root)
    with step("the project itself, editable"):
        run([*uv, "install", *place, "--no-deps", "--editable", "."], NETWORK, cwd=root)


def entry(lock: str, name: str) -> str:
    """Return the lines of one package of a lock file: its pin and its hashes.

    Raises:
        SetupError: the lock does not hold it.
    """
    lines = iter(lock.splitlines())
    for line in lines:
        if line.startswith(f"{name}=="):
            hashes = [line]
            while hashes[-1].endswith("\\"):
                hashes.append(next(lines))
            return "\n".join(hashes) + "\n"
    raise SetupError(f"{LOCK} holds no {name}: run `make lock`")


def spark_home(root: Path) -> Path:
    """Return the folder of Spark: pyspark's package in var/venv.

    Raises:
        SetupError: it is not there.
    """
    found = sorted((root / "var/venv").glob("lib/python3.*/site-packages/pyspark"))
    if not found:
        raise SetupError("var/venv holds no pyspark: remove var/venv and run `make setup`")
    return found[-1]
