"""Airflow's processes write to one SQLite at the same time, and wait for each other."""

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from infra.embedded import airflow_home
from infra.embedded.airflow_local_settings import begin_to_write
from infra.embedded.places import Ports


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A database as Airflow makes it, with the settings of the embedded default."""
    with sqlite3.connect(tmp_path / "airflow.db") as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE run (name TEXT)")
    database.close()
    made = create_engine(f"sqlite:///{tmp_path / 'airflow.db'}?timeout=60")
    yield made
    made.dispose()


def names_after_a_write_between(engine: Engine) -> list[str]:
    """Read and write in a savepoint, as Airflow makes each run of a backfill, while another process writes once."""
    wrote = threading.Event()

    def write() -> None:
        with Session(engine) as other:
            other.execute(text("INSERT INTO run VALUES ('of the scheduler')"))
            other.commit()
        wrote.set()

    scheduler = threading.Thread(target=write)
    with Session(engine) as session:
        with session.begin_nested():
            assert session.execute(text("SELECT count(*) FROM run")).scalar() == 0
            scheduler.start()
            wrote.wait(0.5)  # where it can write at all
            session.execute(text("INSERT INTO run VALUES ('of the backfill')"))
        session.commit()
    scheduler.join()
    with Session(engine) as session:
        return list(session.execute(text("SELECT name FROM run ORDER BY name")).scalars())


def test_who_reads_and_then_writes_is_not_refused_for_what_another_wrote_meanwhile(engine: Engine) -> None:
    assert names_after_a_write_between(engine) == ["of the backfill", "of the scheduler"]


def test_a_savepoint_of_who_writes_already_begins_nothing(engine: Engine) -> None:
    with Session(engine) as session:
        for name in ("first", "second"):
            session.execute(text("INSERT INTO run VALUES (:name)"), {"name": name})
            with session.begin_nested():
                assert session.execute(text("SELECT name FROM run")).scalars().all()[-1] == name
        session.rollback()
        assert session.execute(text("SELECT count(*) FROM run")).scalar() == 0


def test_airflow_imports_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, place in {"HOME": "", "SECRETS": "secrets.json", "PASSWORDS": "passwords.json"}.items():
        monkeypatch.setattr(airflow_home, name, tmp_path / place)
    airflow_home.configure(Ports(redis=1, mlflow=2, airflow=3, lookup=4))
    code = "import airflow.settings as a; a.initialize(); import airflow_local_settings as own; print(own.__file__)"
    environment = {**os.environ, "AIRFLOW_HOME": str(tmp_path)}
    found = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert found.stdout.splitlines()[-1] == str(tmp_path / "config" / "airflow_local_settings.py")


def test_without_it_sqlite_refuses_the_write(engine: Engine) -> None:
    """The fault that it is there for."""
    event.remove(Engine, "savepoint", begin_to_write)
    try:
        with pytest.raises(OperationalError, match="database is locked"):
            names_after_a_write_between(engine)
    finally:
        event.listen(Engine, "savepoint", begin_to_write)
