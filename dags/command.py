"""The light tasks: commands of the `scoreline` program that need no Spark."""

from collections.abc import Sequence
from typing import Any

from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import BaseOperator, Context

from dags.errors import failure


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
