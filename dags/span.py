"""The DAG that backfills a range of days: one job for all of them."""

from datetime import datetime
from typing import Any

from airflow.sdk import DAG, chain

from dags.assets import publication_asset, scores_asset
from dags.params import CHOICES, DAYS, PUBLISH, RESTATE
from dags.patience import patience
from dags.resolve import RESOLVED, resolve_model
from dags.submit import submit
from jobs.spec import Pipeline

FIRST, LAST = "{{ params['from'] }}", "{{ params['to'] }}"
SPAN = ["--from", FIRST, "--to", LAST, "--run-id", "{{ run_id }}"]
PAGE = """
# Score many days of {name} in one job

Trigger it with the days `from` and `to`. Three Spark jobs, whatever the range: the days' landing files that were not \
ingested yet, the scores of all dates, and one publication, of the last day.

| | |
|---|---|
| Bits | the same as those of runs of the days, one by one |
| Dates that have the scores of that model | are done and left alone, unless `restate` is on |
| A date at fault | is not scored; all others are, and the task then fails with the dates and what is wrong |
| A day's landing file is missing | nothing is scored: deliver it, or run `scoreline backfill`, which ingests nothing |
| Killed | clear the task: it goes on with what is not done; with `restate` it begins again |
| How long it may take | as long as it takes: a task of many days has no `timeout_minutes` |
| Published | the last day, unless a newer date is live; nothing where dates are at fault |
| Progress | the log of the task `backfill` has a line for each part of the range |

Runs of single days, `airflow backfill create` and the stream may go on meanwhile: of two who score one date at the \
same moment, one is told to come again. Without Airflow: `scoreline backfill {name} --from DAY --to DAY`.
"""


def backfill_dag(pipeline: Pipeline, defaults: dict[str, Any], start: datetime) -> DAG:
    """Return the DAG that scores a range of a pipeline's days; only people start it."""
    name = pipeline.name
    page = PAGE.format(name=name)
    with DAG(
        dag_id=f"{name}_backfill",
        description=next(line[2:] for line in page.splitlines() if line.startswith("# ")),
        doc_md=page,
        schedule=None,
        start_date=start,
        catchup=False,
        max_active_runs=1,
        tags=[*pipeline.tags, "backfill"],
        params={**DAYS, **CHOICES},
        default_args=defaults,
        auto_register=False,
    ) as dag:
        scores, publication = scores_asset(name), publication_asset(name)
        last = ["--day", LAST, "--run-id", "{{ run_id }}"]
        chain(
            resolve_model(pipeline),
            submit("ingest", name, *SPAN, execution_timeout=None),
            submit("backfill", name, *SPAN, *RESOLVED, RESTATE, outlets=[scores], execution_timeout=None, is_long=True),
            submit("publish", name, *last, *PUBLISH, inlets=[scores], outlets=[publication], **patience(pipeline)),
        )
    return dag
