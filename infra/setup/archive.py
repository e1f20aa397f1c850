"""Java's archive of the classes that a job loads: each job of this machine then starts some five seconds sooner."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from infra.setup import conf, jars, packages
from infra.setup.steps import step

FILE = "var/conf/classes.jsa"
JOB = Path(__file__).with_name("typical_job.py")


def make(root: Path, java: Path) -> None:
    """Let a typical job write the archive, unless it is there for this Java and these jars.

    It is a convenience: where it fails, set-up says so and jobs start as slowly as without it.
    """
    stamp, wanted = root / "var/conf/classes.txt", fingerprint(root, java)
    if stamp.is_file() and stamp.read_text() == wanted and (root / FILE).is_file():
        return
    with step("an archive of Java classes, by one small Spark job"):
        (root / FILE).unlink(missing_ok=True)
        if write(root, java):
            stamp.write_text(wanted)


def write(root: Path, java: Path) -> bool:
    """Run the typical job, as jobs are run on this machine, with the order to write the archive at its end."""
    work = root / "var/tmp/classes"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    defaults = (root / "var/conf/spark-defaults.conf").read_text()
    (work / "spark-defaults.conf").write_text(defaults.replace("-XX:SharedArchiveFile=", "-XX:ArchiveClassesAtExit="))
    inherited = os.environ  # noqa: TID251  reason: what is started inherits it; nothing is read here
    variables = {**inherited, **conf.toolchain(root, java), "SPARK_CONF_DIR": str(work)}
    command = [str(root / "var/venv/bin/spark-submit"), str(JOB), str(work)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    shutil.rmtree(work)
    if not (root / FILE).is_file():
        print("\n".join(done.stderr.splitlines()[-5:]), file=sys.stderr)
        print("set-up: no archive was written: jobs work without it, and start some seconds later", flush=True)
    return (root / FILE).is_file()


def fingerprint(root: Path, java: Path) -> str:
    """Return what the archive depends on: Java refuses it for other classes or another class path."""
    release = (java.parents[1] / "release").read_bytes() if (java.parents[1] / "release").is_file() else b""
    parts = [str(java), release.decode(errors="replace"), str(packages.spark_home(root)), jars.SPARK.named.read_text()]
    parts += [(root / "var/conf/spark-defaults.conf").read_text(), JOB.read_text()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
