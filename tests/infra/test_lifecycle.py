"""Up and down: a start that fails stops what it started and nothing else; records that are spoilt stop nobody."""

import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import psutil
import pytest
from rich.console import Console

from infra.embedded import __main__ as program
from infra.embedded import airflow_home, demo, environment, lifecycle, processes
from infra.embedded.errors import DemoFault, EmbeddedError, ServiceFailed
from infra.embedded.scheduler import Scheduler
from infra.embedded.services import Service, stream_name
from infra.embedded.settings import Settings

SLEEP = ("-c", "import time; time.sleep(600)")


def service(name: str) -> Service:
    return Service(name, (sys.executable, *SLEEP), "", str)


def interrupted(*_: object) -> NoReturn:
    raise KeyboardInterrupt


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime of the test's own, with two services that sleep, and no Airflow."""
    for module, name, place in (
        (lifecycle, "RUN", ""),
        (lifecycle, "VAR", ""),
        (environment, "VAR", ""),
        (demo, "VAR", ""),
        (lifecycle, "STATE", "runtime.json"),
        (environment, "TOOLCHAIN", "toolchain.json"),
        (lifecycle, "LOGS", ""),
        (processes, "LOGS", ""),
        (processes, "RECORDS", "services"),
    ):
        monkeypatch.setattr(module, name, tmp_path / place)
    (tmp_path / "toolchain.json").write_text("{}")
    monkeypatch.setattr(lifecycle, "FOLDERS", (tmp_path / "services",))
    monkeypatch.setattr(lifecycle, "stores", lambda _: [service("first"), service("second")])
    monkeypatch.setattr(lifecycle, "airflow", lambda _: [])
    monkeypatch.setattr(lifecycle, "streams", lambda *_: [])
    monkeypatch.setattr(airflow_home, "configure", lambda _: None)
    monkeypatch.setattr(airflow_home, "migrate", lambda _: None)
    monkeypatch.setattr(airflow_home, "password", lambda: "")
    monkeypatch.setattr(Scheduler, "keep_pool", lambda *_: None)
    monkeypatch.setattr(Scheduler, "keep_connection", lambda *_: None)
    yield tmp_path
    lifecycle.down()


def up() -> None:
    lifecycle.up(lambda _: None, Settings())


def kill(name: str) -> None:
    pid = pids()[name]
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def pids() -> dict[str, int]:
    return {name: started.pid for name, started in lifecycle.alive().items()}


@pytest.mark.usefixtures("folder")
def test_an_interrupted_second_start_leaves_the_first_running(monkeypatch: pytest.MonkeyPatch) -> None:
    up()
    before = pids()
    kill("second")
    monkeypatch.setattr(lifecycle, "await_well", interrupted)

    with pytest.raises(KeyboardInterrupt):
        up()

    assert pids() == {"first": before["first"]}


def test_an_interrupted_first_start_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "await_well", interrupted)

    with pytest.raises(KeyboardInterrupt):
        up()

    assert pids() == {}
    assert not (folder / "runtime.json").exists()


def test_an_empty_record_of_the_runtime_stops_no_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    up()
    (folder / "runtime.json").write_text("")

    assert lifecycle.current() is None
    assert "runtime.json cannot be read" in capsys.readouterr().err
    assert lifecycle.down() == 2
    assert lifecycle.down() == 0


@pytest.fixture
def one_stream(monkeypatch: pytest.MonkeyPatch) -> str:
    """A stream, which `make up` starts, of the pipeline `sold`."""
    own = replace(service(stream_name("sold")), variables={"SPARK_CONF_DIR": "long"})
    monkeypatch.setattr(lifecycle, "streams", lambda *_: [own])
    return stream_name("sold")


@pytest.mark.usefixtures("folder")
def test_a_dead_stream_is_started_again_as_one_of_the_services(one_stream: str) -> None:
    """It has the runtime's mark, variables and a session of its own; `down` stops it; what lives stays as it is."""
    up()
    before = pids()
    kill(one_stream)

    lifecycle.start_stream("sold")

    after = pids()
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {one_stream}
    runtime = lifecycle.load()
    assert runtime
    own = {processes.MARK: runtime.mark, "SPARK_CONF_DIR": "long"}
    assert psutil.Process(after[one_stream]).environ().items() >= own.items()
    assert os.getsid(after[one_stream]) == after[one_stream]
    lifecycle.start_stream("sold")
    assert pids() == after
    assert lifecycle.down() == 3


@pytest.mark.usefixtures("folder", "one_stream")
def test_a_stream_is_started_beside_services_alone_and_only_where_it_is_declared() -> None:
    with pytest.raises(EmbeddedError, match="nothing is running: make up"):
        lifecycle.start_stream("sold")
    up()
    with pytest.raises(EmbeddedError, match="lost is no pipeline whose YAML declares a stream"):
        lifecycle.start_stream("lost")
    with lifecycle.alone("start or stop"), pytest.raises(EmbeddedError, match="another start or stop"):
        lifecycle.start_stream("sold")


@pytest.mark.usefixtures("folder")
def test_status_shows_what_is_dead_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    up()
    program.show()
    kill("second")

    with pytest.raises(ServiceFailed, match="dead: second: `make up` starts what is missing"):
        program.show()

    assert "dead" in capsys.readouterr().out


@pytest.mark.usefixtures("folder")
def test_the_demo_leaves_running_services_alone() -> None:
    up()
    before = pids()

    with pytest.raises(DemoFault, match=r"services are running.*make down"):
        demo.run(Console(quiet=True), Settings())

    assert pids() == before


def test_the_demo_has_its_own_time_and_mends_its_record(folder: Path) -> None:
    first = demo.clock()
    assert first.startswith("1998-06-04T06:00:00Z@")
    assert demo.clock() == first

    (folder / "demo-clock.txt").write_text("")
    assert demo.clock().startswith("1998-06-04T06:00:00Z@")


@pytest.mark.usefixtures("folder")
def test_the_demo_s_time_wins_over_the_shell_s(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Settings] = []

    def noted(_: object, settings: Settings) -> NoReturn:
        asked.append(settings)
        interrupted()

    monkeypatch.setattr(lifecycle, "up", noted)

    with pytest.raises(KeyboardInterrupt):
        demo.run(Console(quiet=True), Settings(clock="real", spark_slots=2))

    assert (asked[0].clock, asked[0].spark_slots) == (demo.clock(), 2)


@pytest.mark.usefixtures("folder")
def test_an_interrupted_demo_stops_what_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "services_table", interrupted)

    with pytest.raises(KeyboardInterrupt):
        demo.run(Console(quiet=True), Settings(clock="real"))

    assert pids() == {}
