"""Airflow by its public REST API: the pool, the DAG, its runs and their tasks."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import httpx

from infra.embedded.errors import SchedulerFault

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
        answer = httpx.post(f"{self.url}/auth/token", json=login, timeout=TIMEOUT_S)
        token = checked(answer)["access_token"]
        return httpx.Client(
            base_url=f"{self.url}/api/v2", headers={"Authorization": f"Bearer {token}"}, timeout=TIMEOUT_S
        )

    def keep_pool(self, name: str, slots: int) -> None:
        """Create the pool, or give it this number of slots."""
        body = {"name": name, "slots": slots, "description": "Spark jobs at a time", "include_deferred": False}
        if self.client.get(f"/pools/{name}").status_code == httpx.codes.OK:
            checked(self.client.patch(f"/pools/{name}", json=body))
        else:
            checked(self.client.post("/pools", json=body))

    def knows(self, dag_id: str) -> bool:
        """Tell whether the DAG has been parsed.

        Raises:
            SchedulerFault: a DAG file could not be imported.
        """
        faults = checked(self.client.get("/importErrors"))["import_errors"]
        if faults:
            first = faults[0]
            raise SchedulerFault(f"Airflow cannot import {first['filename']}: {first['stack_trace'].splitlines()[-1]}")
        return self.client.get(f"/dags/{dag_id}").status_code == httpx.codes.OK

    def unpause(self, dag_id: str) -> None:
        """Let the scheduler run the DAG."""
        checked(self.client.patch(f"/dags/{dag_id}", json={"is_paused": False}))

    def cancel_backfills(self, dag_id: str) -> None:
        """End the DAG's backfills that are not done: only one at a time may be."""
        page = self.client.get("/backfills", params={"dag_id": dag_id, "limit": 100})
        for backfill in checked(page)["backfills"]:
            if backfill["completed_at"] is None:
                checked(self.client.put(f"/backfills/{backfill['id']}/cancel"))

    def fail(self, dag_id: str, run_id: str) -> None:
        """End a run that is at work."""
        checked(self.client.patch(f"/dags/{dag_id}/dagRuns/{run_id}", json={"state": "failed"}))

    def runs(self, dag_id: str) -> list[JSON]:
        """Return the DAG's runs, newest interval first."""
        page = self.client.get(f"/dags/{dag_id}/dagRuns", params={"order_by": "-run_after", "limit": 100})
        runs: list[JSON] = checked(page)["dag_runs"]
        return runs

    def tasks(self, dag_id: str, run_id: str) -> list[JSON]:
        """Return the task instances of a run."""
        page = self.client.get(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances", params={"limit": 100})
        tasks: list[JSON] = checked(page)["task_instances"]
        return tasks


def checked(answer: httpx.Response) -> JSON:
    """Return the answer's body.

    Raises:
        SchedulerFault: Airflow refused the request.
    """
    if answer.is_error:
        raise SchedulerFault(f"Airflow answers {answer.status_code} to {answer.request.url}: {answer.text[:300]}")
    body: JSON = answer.json()
    return body
