"""The first task of a run: refuse what cannot be scored, and fix the model that all tasks of the run use."""

import json
from collections.abc import Sequence
from uuid import uuid4

from airflow.sdk import Context
from airflow.sdk.execution_time.context import NEVER_EXPIRE

from dags.command import RunCommand
from dags.day import days_of, is_of_many, require_days
from dags.errors import JobFailed
from dags.params import choices_of
from dags.patience import patience
from jobs.spec import Pipeline

NONCE = "recorded_as"
CHAMPION = "champion"
_MODEL = "ti.xcom_pull(task_ids='resolve_model')"
RESOLVED: Sequence[str] = ("--model", f"{{{{ {_MODEL}['version'] }}}}", f"--model-digest={{{{ {_MODEL}['digest'] }}}}")


class ResolveModel(RunCommand):
    """Refuses a run that cannot be scored; else fixes the model that all tasks of the run use.

    Returns (as XCom) the model's `name`, `version` and `digest`; of a run of many days, each of which is to be scored
    with the model that it has on record, the version is "recorded". The model is recorded under a name that belongs to
    the run in Airflow's database and to its parameter `model`: it survives retries and clearing, and goes when the run
    is deleted, for Airflow gives the same run id to the next one. A backfill that runs a day again may choose anew.
    """

    def execute(self, context: Context) -> object:
        """Check the run, run the command, and return the JSON object of its last line."""
        require_days(context)
        run_id, wish = context["run_id"], str(choices_of(context)["model"])
        # Without the wish where it is the usual one, as it was before there was a choice.
        record = f"{run_id}.{_nonce(context)}.{wish}".removesuffix(f".{CHAMPION}")
        self.arguments = [*self.arguments, "--model", wish, "--run-id", run_id, "--recorded-as", record]
        if not is_of_many(context):
            self.arguments += ["--day", f"{days_of(context)[0]:%Y-%m-%d}"]
        line = str(super().execute(context))
        try:
            model = json.loads(line)
            return {key: str(model[key]) for key in ("name", "version", "digest")}
        except (ValueError, TypeError, KeyError) as error:
            raise JobFailed(
                f"'scoreline model resolve' ended with {line!r}, which is not a model: {error!r}"
            ) from error


def resolve_model(pipeline: Pipeline) -> ResolveModel:
    """Return the task for a pipeline."""
    return ResolveModel(task_id="resolve_model", arguments=["model", "resolve", pipeline.name], **patience(pipeline))


def _nonce(context: Context) -> str:
    kept = context["task_state_store"]
    if kept.get(NONCE) is None:
        kept.set(NONCE, uuid4().hex, retention=NEVER_EXPIRE)
    return str(kept.get(NONCE))
