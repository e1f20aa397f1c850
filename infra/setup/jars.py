"""Jars, fetched once: resolved by the Ivy that Spark ships, verified by the digests in the file that names them."""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from infra.setup.errors import SetupError
from infra.setup.packages import spark_home
from infra.setup.steps import run, step

HERE = Path(__file__).parent


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


@dataclass(frozen=True)
class Kit:
    """Jars that belong together: the file that names them, their folder below `var`, and what they are."""

    named: Path
    folder: str
    what: str

    def jars(self) -> list[Jar]:
        """Return the jars that the file names."""
        rows = [line.split() for line in self.named.read_text().splitlines() if line and not line.startswith("#")]
        triples = [(coordinates.split(":"), sha256) for coordinates, sha256 in rows]
        return [Jar(group, module, version, sha256) for (group, module, version), sha256 in triples]


SPARK = Kit(HERE / "jars.txt", "jars", "jars of Delta Lake and of Spark's connector to Kafka")
BROKER = Kit(HERE / "broker.txt", "broker", "jars of a Kafka broker, for the tests")


def install(root: Path, java: Path, kit: Kit = SPARK) -> Path:
    """Fetch the jars of a kit that are missing or not what its file says, and return their folder.

    Raises:
        SetupError: a jar could not be fetched, or what came is not what the file says.
    """
    folder, jars = root / "var" / kit.folder, kit.jars()
    if all(intact(folder, jar) for jar in jars):
        return folder
    with step(f"{len(jars)} {kit.what} into var/{kit.folder}"):
        fetch(root, java, jars, folder)
    for jar in jars:
        if not intact(folder, jar):
            raise SetupError(
                f"var/{kit.folder}/{jar.file} is not the jar that infra/setup/{kit.named.name} names: "
                "remove it and run again"
            )
    return folder


def intact(folder: Path, jar: Jar) -> bool:
    """Tell whether the jar is there, byte for byte."""
    path = folder / jar.file
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == jar.sha256


def fetch(root: Path, java: Path, jars: list[Jar], target: Path) -> None:
    """Let Ivy resolve the coordinates, each without what it depends on: Spark brings that itself."""
    work = root / "var/ivy"
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
