"""Configuration of this machine under var/conf: Spark's files, and the environment that programs run in."""

import json
import shlex
from pathlib import Path
from string import Template

from infra.setup import packages

HERE = Path(__file__).parent
# For each folder of Spark's configuration below var/conf: what jobs that read it compile with, and what memory they
# begin with. Jobs that run on and on make much that is soon of no use: with 700 MB for it, less is looked at often.
JVMS = {"": "-XX:TieredStopAtLevel=1 -Xms700m", "long": "-Xms1200m -Xmn700m"}


def render(root: Path, java: Path, redis: Path) -> None:
    """Write Spark's configuration and the toolchain's environment; link the Redis server into var/bin."""
    conf = root / "var/conf"
    conf.mkdir(parents=True, exist_ok=True)
    places = {
        "jars": root / "var/jars",
        "spark": packages.spark_home(root),
        "classes": conf / "classes.jsa",
        "warehouse": root / "var/warehouse",
        "memory": "3g",
    }
    for folder, jvm in JVMS.items():
        (conf / folder).mkdir(exist_ok=True)
        for name in ("spark-defaults.conf", "log4j2.properties"):
            text = Template((HERE / name).read_text()).safe_substitute(places, jvm=jvm)
            replace(conf / folder / name, text)
    link(root / "var/bin/redis-server", redis)
    variables = toolchain(root, java)
    replace(conf / "toolchain.json", json.dumps(variables, indent=2))
    replace(conf / "toolchain.sh", shell(root, variables))


def replace(place: Path, text: str) -> None:
    """Write a file at once, and only if it changes: a job that starts at this moment reads the old or the new one."""
    if place.is_file() and place.read_text() == text:
        return
    new = place.with_name(f".{place.name}.new")
    new.write_text(text)
    new.replace(place)


def toolchain(root: Path, java: Path) -> dict[str, str]:
    """Return the variables that Spark and its Python need, whoever starts them."""
    return {
        # Without it spark-submit looks for itself by a script that breaks in a path with a space.
        "SPARK_HOME": str(packages.spark_home(root)),
        "JAVA_HOME": str(java.parents[1]),
        "SPARK_CONF_DIR": str(root / "var/conf"),
        "PYSPARK_PYTHON": str(root / "var/venv/bin/python"),
        "PYSPARK_DRIVER_PYTHON": str(root / "var/venv/bin/python"),
        "OMP_NUM_THREADS": "1",
        "SPARK_LOCAL_DIRS": str(root / "var/tmp"),
    }


def shell(root: Path, variables: dict[str, str]) -> str:
    """Return them as lines that a shell sources, with the programs of set-up first on PATH."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    programs = ":".join(shlex.quote(str(root / place)) for place in ("var/bin", "var/venv/bin"))
    return "\n".join([*lines, f'export PATH={programs}:"$PATH"', "unset PYTHONPATH", ""])


def link(place: Path, target: Path) -> None:
    """Make `place` a symbolic link to `target`."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_symlink() and place.readlink() == target:
        return
    place.unlink(missing_ok=True)
    place.symlink_to(target)
