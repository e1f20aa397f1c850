"""Delta's jars, once: resolved by the Ivy that Spark ships, verified by the digests in jars.txt."""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from infra.setup.errors import SetupError
from infra.setup.packages import spark_home
from infra.setup.steps import run, step

NAMED = Path(__file__).with_name("jars.txt")


@dataclass(frozen=True)
class Jar:
    """One jar: Maven coordinates and sha256 in hex."""

    group: str
    module: str
    version: str
    sha256: str

    @property
    def file(self) -> str:
        """Return the name of the file that Ivy makes of it."""
        return f"{self.module}-{self.version}.jar"


def install(root: Path, java: Path) -> None:
    """Fetch into `var/jars` the jars that are missing or not what jars.txt says.

    Raises:
        SetupError: a jar could not be fetched, or what came is not what jars.txt says.
    """
    folder, jars = root / "var/jars", named()
    if all(intact(folder, jar) for jar in jars):
        return
    with step(f"{len(jars)} jars of Delta Lake into var/jars"):
        fetch(root, java, jars)
    for jar in jars:
        if not intact(folder, jar):
            raise SetupError(
                f"var/jars/{jar.file} is not the jar that infra/setup/jars.txt names: remove it and run again"
            )


def named() -> list[Jar]:
    """Return the jars of jars.txt."""
    rows = [line.split() for line in NAMED.read_text().splitlines() if line and not line.startswith("#")]
    triples = [(coordinates.split(":"), sha256) for coordinates, sha256 in rows]
    return [Jar(group, module, version, sha256) for (group, module, version), sha256 in triples]


def intact(folder: Path, jar: Jar) -> bool:
    """Tell whether the jar is there, byte for byte."""
    path = folder / jar.file
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == jar.sha256


def fetch(root: Path, java: Path, jars: list[Jar]) -> None:
    """Let Ivy resolve the coordinates, each without what it depends on: Spark brings that itself."""
    work, target = root / "var/ivy", root / "var/jars"
    shutil.rmtree(target, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    module = work / "ivy.xml"
    module.write_text(ivy_module(jars))
    command = [
        str(java),
        f"-Divy.default.ivy.user.dir={work}",
        "-jar",
        str(ivy(root)),
        "-ivy",
        str(module),
        "-confs",
        "default",
    ]
    retrieve = ["-retrieve", f"{target}/[artifact]-[revision].[ext]"]
    run([*command, *retrieve], "check that this machine reaches Maven Central, then run it again")
    shutil.rmtree(work)


def ivy(root: Path) -> Path:
    """Return the Ivy that Spark's package ships."""
    found = sorted(spark_home(root).glob("jars/ivy-*.jar"))
    if not found:
        raise SetupError("pyspark's package in var/venv has no jars/ivy-*.jar: remove var/venv and run `make setup`")
    return found[-1]


def ivy_module(jars: list[Jar]) -> str:
    """Return the Ivy file that asks for exactly these jars."""
    conf = 'transitive="false" conf="default->master"'
    rows = "\n".join(f'<dependency org="{jar.group}" name="{jar.module}" rev="{jar.version}" {conf}/>' for jar in jars)
    info = '<info organisation="scoreline" module="jars"/>'
    return f'<ivy-module version="2.0">{info}<dependencies>\n{rows}\n</dependencies></ivy-module>\n'
