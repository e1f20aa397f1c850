"""Airflow's processes write to one SQLite at the same time, and wait for each other."""

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from infra.embedded.airflow_local_settings import begin_to_write


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


def test_without_it_sqlite_refuses_the_write(engine: Engine) -> None:
    """The fault that it is there for."""
    event.remove(Engine, "savepoint", begin_to_write)
    try:
        with pytest.raises(OperationalError, match="database is locked"):
            names_after_a_write_between(engine)
    finally:
        event.listen(Engine, "savepoint", begin_to_write)
