"""Airflow by its public REST API: the pool, the connection, the DAG, its runs and their tasks."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import quote

import httpx

from infra.embedded.errors import SchedulerFault
from infra.embedded.places import LOGS

JSON = dict[str, Any]
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Scheduler:
    """The API server at `url`, asked as its administrator."""

    url: str
    password: str

    @cached_property
    def client(self) -> httpx.Client:
        """Return a client that carries a token."""
        login = {"username": "admin", "password": self.password}
        with httpx.Client(timeout=TIMEOUT_S, trust_env=False) as anyone:
            token = checked(send(anyone, "POST", f"{self.url}/auth/token", json=login))["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=f"{self.url}/api/v2", headers=headers, timeout=TIMEOUT_S, trust_env=False)

    def ask(self, method: str, path: str, **content: Any) -> JSON:
        """Return the body of Airflow's answer.

        Raises:
            SchedulerFault: Airflow does not answer, or refuses.
        """
        return checked(send(self.client, method, path, **content))

    def has(self, path: str) -> bool:
        """Tell whether there is such a thing."""
        return send(self.client, "GET", path).status_code == httpx.codes.OK

    def keep_pool(self, name: str, slots: int) -> None:
        """Create the pool, or give it this number of slots."""
        body = {"name": name, "slots": slots, "description": "Spark jobs at a time", "include_deferred": False}
        if self.has(f"/pools/{name}"):
            self.ask("PATCH", f"/pools/{name}", json=body)
        else:
            self.ask("POST", "/pools", json=body)

    def keep_connection(self, name: str, content: JSON) -> None:
        """Create the connection; one that is there stays as somebody made it."""
        if not self.has(f"/connections/{name}"):
            self.ask("POST", "/connections", json={"connection_id": name, **content})

    def knows(self, dag_id: str) -> bool:
        """Tell whether the DAG has been parsed.

        Raises:
            SchedulerFault: a DAG file could not be imported.
        """
        for fault in self.ask("GET", "/importErrors")["import_errors"]:
            last = fault["stack_trace"].strip().splitlines()[-1]
            raise SchedulerFault(f"Airflow cannot import {fault['filename']}: {last}")
        return self.has(f"/dags/{dag_id}")

    def unpause(self, dag_id: str) -> None:
        """Let the scheduler run the DAG."""
        self.ask("PATCH", f"/dags/{dag_id}", json={"is_paused": False})

    def cancel_backfills(self, dag_id: str) -> None:
        """End the DAG's backfills that are not done: only one at a time may be."""
        for backfill in self.ask("GET", "/backfills", params={"dag_id": dag_id, "limit": 100})["backfills"]:
            if backfill["completed_at"] is None:
                self.ask("PUT", f"/backfills/{backfill['id']}/cancel")

    def fail(self, dag_id: str, run_id: str) -> None:
        """End a run that is at work."""
        self.ask("PATCH", f"/dags/{dag_id}/dagRuns/{quote(run_id)}", json={"state": "failed"})

    def runs(self, dag_id: str) -> list[JSON]:
        """Return the DAG's runs, newest interval first."""
        newest = {"order_by": "-run_after", "limit": 100}
        runs: list[JSON] = self.ask("GET", f"/dags/{dag_id}/dagRuns", params=newest)["dag_runs"]
        return runs

    def tasks(self, dag_id: str, run_id: str) -> list[JSON]:
        """Return the task instances of a run."""
        path = f"/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances"
        tasks: list[JSON] = self.ask("GET", path, params={"limit": 100})["task_instances"]
        return tasks


def send(client: httpx.Client, method: str, path: str, **content: Any) -> httpx.Response:
    """Send a request.

    Raises:
        SchedulerFault: nobody answers.
    """
    try:
        return client.request(method, path, **content)
    except httpx.HTTPError as error:
        raise SchedulerFault(f"Airflow does not answer ({error}): see {LOGS}/airflow-api-server.log") from error


def checked(answer: httpx.Response) -> JSON:
    """Return the answer's body.

    Raises:
        SchedulerFault: Airflow refused the request.
    """
    if answer.is_error:
        raise SchedulerFault(f"Airflow answers {answer.status_code} to {answer.request.url}: {answer.text[:300]}")
    body: JSON = answer.json()
    return body
