"""What Airflow's processes import first, from the folder of their configuration: how they share SQLite."""

from sqlalchemy import Connection, Engine, event

__all__ = ()  # what is named here, Airflow takes for settings of its own


@event.listens_for(Engine, "savepoint")
def begin_to_write(connection: Connection, _name: str) -> None:
    """Take the turn to write before a savepoint, and wait for it as long as the database's address says.

    Who opens one is about to read and then write, as Airflow does for each run of a backfill. SQLite begins such a
    transaction as a reader, and refuses the write at once ("database is locked", whatever its timeout) where another
    process has written since: the scheduler does so every second. The turn lasts until the commit, for a backfill some
    30 ms a run, and its runs come to be together.
    """
    driver = connection.connection.driver_connection
    if connection.dialect.name == "sqlite" and not getattr(driver, "in_transaction", True):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
