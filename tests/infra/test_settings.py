"""What a person sets for the embedded runtime is refused by name before anything starts."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from infra.embedded import environment, places, state
from infra.embedded.errors import EmbeddedError
from infra.embedded.places import Ports
from infra.embedded.settings import Settings, settings
from tests.conftest import ROOT, free_port

PORTS = Ports(1, 2, 3, 4)


@pytest.fixture(autouse=True)
def unread() -> None:
    settings.cache_clear()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SCORELINE_SPARK_SLOTS", "two"),
        ("SCORELINE_SPARK_SLOTS", "0"),
        ("SCORELINE_REDIS_PORT", "0"),
        ("SCORELINE_LOOKUP_PORT", "http"),
        ("SCORELINE_CLOCK", "yesterday"),
    ],
)
def test_a_wrong_value_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(EmbeddedError, match=f"{name}={value}: .*; set it to such a value or unset it"):
        settings()


def test_an_empty_value_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCORELINE_SPARK_SLOTS", "")
    monkeypatch.setenv("SCORELINE_LAKE", "")

    assert (settings().spark_slots, settings().lake) == (1, None)


def test_nothing_starts_with_a_wrong_value(tmp_path: Path) -> None:
    variables = {"PYTHONPATH": str(ROOT), "SCORELINE_VAR": str(tmp_path / "var"), "SCORELINE_SPARK_SLOTS": "two"}
    command = [sys.executable, "-m", "infra.embedded", "up"]

    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert done.stderr.startswith("error: SCORELINE_SPARK_SLOTS=two: ")
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_was_asked_for_must_be_free(redis_url: str) -> None:
    port = free_port()
    assert places.choose_ports(Settings(redis_port=port)).redis == port

    taken = int(redis_url.rsplit(":", 1)[1].split("/", maxsplit=1)[0])
    with pytest.raises(EmbeddedError, match=f"SCORELINE_REDIS_PORT={taken} is no free port"):
        places.choose_ports(Settings(redis_port=taken))


def test_a_preferred_port_that_is_taken_gives_way(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = int(redis_url.rsplit(":", 1)[1].split("/", maxsplit=1)[0])
    monkeypatch.setitem(places.PREFERRED, "redis", taken)

    assert places.choose("redis", None) != taken


def test_loopback_is_asked_without_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "intern.example")
    monkeypatch.delenv("NO_PROXY", raising=False)

    found = environment.environment({})

    assert found["no_proxy"] == "127.0.0.1,localhost,intern.example"
    assert found["NO_PROXY"] == "127.0.0.1,localhost"


def test_a_shell_gets_the_lookup_and_keeps_what_it_reaches_directly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toolchain = tmp_path / "toolchain.json"
    toolchain.write_text("{}")
    monkeypatch.setattr(environment, "TOOLCHAIN", toolchain)
    monkeypatch.setattr(environment, "VAR", tmp_path)

    ours = environment.variables(PORTS, Settings(lake="s3a://bucket/lake"))
    environment.write_shell(ours)
    command = f". '{tmp_path}/env' && echo \"$SCORELINE_URL $SCORELINE_LAKE $SCORELINE_CLOCK $NO_PROXY\""
    shown = subprocess.run(["sh", "-c", command], env={"NO_PROXY": "x"}, capture_output=True, text=True, check=True)

    assert shown.stdout == "http://127.0.0.1:4 s3a://bucket/lake real 127.0.0.1,localhost,x\n"
    assert "AIRFLOW_CONN_SPARK_DEFAULT" not in ours, "it would win over the connection that a person edits"


def test_a_dead_stream_is_started_by_this_runtime_alone_and_only_if_it_has_streams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task has another working folder, so the runtime's is named in full."""
    toolchain = tmp_path / "toolchain.json"
    toolchain.write_text("{}")
    monkeypatch.setattr(environment, "TOOLCHAIN", toolchain)

    ours = environment.variables(PORTS, Settings())
    program, *arguments = shlex.split(ours["SCORELINE_STREAM_RESTART"])

    assert arguments == ["-m", "infra.embedded", "stream", "{pipeline}"]
    assert Path(program).is_absolute()
    assert Path(ours["SCORELINE_VAR"]).is_absolute()
    assert environment.variables(PORTS, Settings(streams=False))["SCORELINE_STREAM_RESTART"] == ""


def test_without_set_up_the_remedy_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "TOOLCHAIN", tmp_path / "toolchain.json")

    with pytest.raises(EmbeddedError, match="run `make setup`"):
        environment.variables(PORTS, Settings())


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secrets.json"
    state.write(path, "old", state.PRIVATE)
    assert path.stat().st_mode & 0o777 == 0o600

    def killed(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        state.write(path, "new")

    assert path.read_text() == "old"
