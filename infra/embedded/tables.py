"""Tables for a person: where each service is."""

from pathlib import Path

from rich.table import Table

from infra.embedded.airflow_home import PASSWORDS
from infra.embedded.places import LOGS, VAR, shown
from infra.embedded.processes import Started, recorded


def services_table() -> Table:
    """Return one row a service that was started: where it is, its process, its log."""
    table = Table(title="Scoreline, on this machine alone")
    for heading in ("service", "where", "pid", "log"):
        table.add_column(heading, overflow="fold")
    for service in recorded():
        table.add_row(service.name, service.place or "-", process_of(service), shown(Path(service.log)))
    return table


def process_of(service: Started) -> str:
    """Return the process's number, or that it is dead."""
    return str(service.pid) if service.process() else "[red]dead[/red]"


def hints() -> str:
    """Return what a person does next."""
    return (
        f"Airflow: user admin, password in {shown(PASSWORDS)}; logs of tasks in {shown(LOGS / 'airflow')}\n"
        f"In a shell: `. {sourced(VAR / 'env')}`, then `scoreline --help`, `airflow dags list`. To stop: make down"
    )


def sourced(path: Path) -> str:
    """Return a file as a shell in the project's folder sources it."""
    return f"'{shown(path)}'" if " " in shown(path) else shown(path)
