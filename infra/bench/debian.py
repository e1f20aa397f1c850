"""Programs of Debian's packages, unpacked under var/bench: no password is asked, and no daemon starts."""

import re
import shutil
import subprocess
from pathlib import Path

from infra.setup.errors import SetupError
from infra.setup.programs import privilege, quiet
from infra.setup.steps import run, step

REMEDIES = {
    "wrk": "install wrk (Debian, Ubuntu: apt-get install wrk; macOS: brew install wrk)",
    "webdis": "build webdis from its source and put it on PATH, or measure on Debian or Ubuntu",
}


def program(name: str, folder: Path) -> list[str]:
    """Return how to start a program: PATH's, else that of the package of its name, unpacked below `folder`.

    Raises:
        SetupError: it is not here and cannot be had; the message names the remedy.
    """
    found = shutil.which(name)
    if found:
        return [found]
    root = folder / "debian"
    if not (root / "usr/bin" / name).exists():
        with step(f"{name}, from Debian's package, below {folder.name}"):
            _unpack(name, root)
    libraries = ":".join(str(place) for place in sorted(root.glob("usr/lib/*/")))
    return ["/usr/bin/env", f"LD_LIBRARY_PATH={libraries}", str(root / "usr/bin" / name)]


def _unpack(name: str, root: Path) -> None:
    """Fetch the package and what it needs that is not installed; apt verifies them by the distribution's signature."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise SetupError(f"{name} is not on PATH: {REMEDIES[name]}")
    wanted = _missing(name) or (_refreshed() and _missing(name))
    if not wanted:
        raise SetupError(f"apt-get knows no package {name}: run apt-get update, or {REMEDIES[name]}")
    archives = root / "archives"
    shutil.rmtree(archives, ignore_errors=True)
    archives.mkdir(parents=True)
    run(["apt-get", "download", *wanted], f"run apt-get update, or {REMEDIES[name]}", cwd=archives)
    for archive in sorted(archives.glob("*.deb")):
        run(["dpkg-deb", "--extract", str(archive), str(root)], REMEDIES[name])


def _missing(name: str) -> list[str]:
    """Return the packages that installing `name` would bring; none where it is not known."""
    command = ["apt-get", "install", "--simulate", "--no-install-recommends", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return re.findall(r"^Inst (\S+)", done.stdout, re.MULTILINE)


def _refreshed() -> bool:
    prefix = privilege("apt-get")
    return prefix is not None and quiet([*prefix, "apt-get", "update"])
