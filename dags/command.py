"""The light tasks: commands of the `scoreline` program that need no Spark."""

import json
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import BaseOperator, Context
from airflow.sdk.execution_time.context import NEVER_EXPIRE

from dags.day import require_day
from dags.errors import JobFailed, failure

NONCE = "recorded_as"


class RunCommand(BaseOperator):
    """One `scoreline` command, without a shell in between.

    Raises:
        JobRefused: it ended with exit code 3; Airflow does not retry.
        JobFailed: it ended with another code; Airflow tries again.
    """

    template_fields: Sequence[str] = ("arguments",)

    def __init__(self, *, arguments: list[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.arguments = arguments
        self._hook = SubprocessHook()

    def execute(self, context: Context) -> object:  # noqa: ARG002  # reason: Airflow's signature
        """Run the command and return the last line that it wrote."""
        result = self._hook.run_command(["scoreline", *self.arguments])
        if result.exit_code:
            raise failure(result.exit_code, result.output)
        return result.output

    def on_kill(self) -> None:
        """End the command and what it started."""
        self._hook.send_sigterm()  # type: ignore[no-untyped-call]  # reason: Airflow's, without types


class ResolveModel(RunCommand):
    """Refuses a run that cannot be scored; else fixes the model that all tasks of the run use.

    Returns (as XCom) the model's `name`, `version` and `digest`. The model is recorded under a name that belongs to the
    run in Airflow's database: it survives retries and clearing, and goes when the run is deleted, for Airflow gives the
    same run id to the next one.
    """

    def execute(self, context: Context) -> object:
        """Check the day, run the command, and return the JSON object of its last line."""
        require_day(context)
        run_id = context["run_id"]
        self.arguments = [*self.arguments, "--run-id", run_id, "--recorded-as", f"{run_id}.{_nonce(context)}"]
        line = str(super().execute(context))
        try:
            model = json.loads(line)
            return {key: str(model[key]) for key in ("name", "version", "digest")}
        except (ValueError, TypeError, KeyError) as error:
            raise JobFailed(
                f"'scoreline model resolve' ended with {line!r}, which is not a model: {error!r}"
            ) from error


def _nonce(context: Context) -> str:
    kept = context["task_state_store"]
    if kept.get(NONCE) is None:
        kept.set(NONCE, uuid4().hex, retention=NEVER_EXPIRE)
    return str(kept.get(NONCE))
