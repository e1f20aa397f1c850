"""Tables for a person: where each service is."""

from rich.table import Table

from infra.embedded.airflow_home import HOME
from infra.embedded.places import LOGS, VAR
from infra.embedded.processes import Started


def services_table(services: dict[str, Started]) -> Table:
    """Return one row a service: where it is, its process, its log."""
    table = Table(title="Scoreline, on this machine alone")
    for heading in ("service", "where", "pid", "log"):
        table.add_column(heading, overflow="fold")
    for service in services.values():
        log = service.log.replace(f"{VAR.parent}/", "")
        table.add_row(service.name, service.place or "-", str(service.pid), log)
    return table


def hints() -> str:
    """Return what a person does next."""
    return (
        f"Airflow: user admin, password in {(HOME / 'passwords.json').relative_to(VAR.parent)}; "
        f"logs of tasks in {(LOGS / 'airflow').relative_to(VAR.parent)}\n"
        "In a shell: `. var/env`, then `scoreline --help`, `airflow dags list`. To stop: make down"
    )
