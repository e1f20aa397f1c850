"""The operator that submits a job to Spark, fails by the job's own words, and leaves no process behind."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from airflow.providers.apache.spark.hooks.spark_submit import SparkSubmitHook
from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowException

import jobs.spec
from dags.day import ONE_DAY, days_of
from dags.errors import REASON, failure
from jobs.sparkconf import of_long_jobs

APPLICATION = Path(jobs.spec.__file__).parents[1] / "__main__.py"
GRACE_S = 3.0  # below the 5 s that Airflow's supervisor leaves between SIGTERM and SIGKILL
PR_SET_PDEATHSIG = 1  # prctl(2)


class JobHook(SparkSubmitHook):
    """Runs spark-submit in a process group of its own, and remembers why the job failed."""

    reason = ""
    is_long = False

    @property
    def exit_code(self) -> int | None:
        """The exit code of spark-submit: in client mode, the job's own."""
        return self._submit_sp.returncode if self._submit_sp else None

    def submit(self, application: str = "", **kwargs: Any) -> str | None:
        """Run spark-submit, which ends with this process even if this process is killed by SIGKILL."""
        # A log line that is not UTF-8 must not fail the task.
        kwargs |= {"encoding": "utf-8", "errors": "backslashreplace"}
        if self.is_long:
            kwargs["env"] = of_long_jobs()
        try:
            return super().submit(application, process_group=0, preexec_fn=_end_with_parent(), **kwargs)
        finally:
            self._close_output()

    def on_kill(self) -> None:
        """End the group, which is the JVM and the Python driver that it started; then what the hook ends."""
        if self._submit_sp and self._submit_sp.poll() is None:
            _end_group(self._submit_sp)
        super().on_kill()

    def _close_output(self) -> None:
        if self._submit_sp and self._submit_sp.stdout:
            self._submit_sp.stdout.close()

    def _process_spark_submit_log(self, itr: Iterator[Any]) -> None:
        super()._process_spark_submit_log(self._watched(itr))

    def _watched(self, lines: Iterator[Any]) -> Iterator[Any]:
        for line in lines:
            if line.startswith(REASON):
                self.reason = line.strip()
            yield line


class SubmitJob(SparkSubmitOperator):
    """One job as one spark-submit; the connection and `spark-defaults.conf` say where and how it runs.

    Args:
        is_long: it works for many minutes; Spark reads the configuration for such jobs, if there is one.

    Raises:
        JobRefused: the job found its data at fault (exit code 3); Airflow does not retry.
        JobFailed: anything else; Airflow tries again.
    """

    def __init__(self, *, is_long: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.is_long = is_long

    def execute(self, context: Context) -> None:
        """Submit the job, wait for its end, and write on its assets which run made them."""
        self._hook = hook = self._get_hook()
        try:
            super().execute(context)
        except (AirflowException, RuntimeError) as error:
            raise failure(hook.exit_code, hook.reason or str(error)) from None
        for asset in self.outlets:
            context["outlet_events"][asset].extra.update(_made_by(context))

    def _get_hook(self) -> JobHook:
        hook = JobHook(conn_id=self._conn_id, name=self.name, conf=self.conf, application_args=self.application_args)
        hook.is_long = self.is_long
        return hook


def submit(job: str, pipeline: str, *arguments: str, **others: Any) -> SubmitJob:
    """Return the task that runs a job of a pipeline as one spark-submit."""
    return SubmitJob(
        task_id=job,
        conn_id="spark_default",
        pool="spark",
        application=str(APPLICATION),
        application_args=[job, pipeline, *arguments],
        name=f"scoreline {job} {pipeline}",
        **others,
    )


def _made_by(context: Context) -> dict[str, str]:
    return {"as_of": (days_of(context)[1] + ONE_DAY).isoformat(), "run_id": context["run_id"]}


def _end_with_parent() -> Callable[[], None] | None:
    """Return what the child does first: ask Linux for SIGTERM when its parent dies. Elsewhere it has no such thing."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up here: after the fork nothing may take a lock
    return lambda: prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _end_group(leader: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            leader.wait(GRACE_S)
        os.killpg(leader.pid, signal.SIGKILL)
