"""The command of backfills."""

from datetime import datetime

import click

from jobs.sparkconf import be_long
from jobs.start import DAY, DIGEST, MODEL, PIPELINE, RESTATE, RUN_ID, require_version, started_run

CHUNK = 30  # dates; their features are on disk at once, and their rows are judged in one pass


@click.command()
@PIPELINE
@RUN_ID
@click.option("--from", "first", type=DAY, required=True, help="First day to score at the end of.")
@click.option("--to", "last", type=DAY, required=True, help="Last day.")
@MODEL
@DIGEST
@RESTATE
@click.option("--chunk", default=CHUNK, show_default=True, type=click.IntRange(min=1), help="Dates in one pass.")
def backfill(  # noqa: PLR0913, PLR0917  reason: an argument for each option
    pipeline: str,
    run_id: str,
    first: datetime,
    last: datetime,
    model: str,
    model_digest: str,
    restate: bool,  # noqa: FBT001  reason: click passes flags so
    chunk: int,
) -> None:
    """Score the ends of many days in one job; the dates that have the scores of the model already are done."""
    if last < first:
        raise click.UsageError(f"--to {last.date()} is before --from {first.date()}")
    require_version(model, model_digest)
    be_long()
    with started_run(pipeline, last.date(), run_id, "jobs.backfill.job", "expectations.gate") as run:
        from dataclasses import replace

        from jobs.backfill.job import Order
        from jobs.backfill.job import backfill as score_range
        from jobs.choice import RECORDED, chosen
        from jobs.landing import days_between

        found = None if model == RECORDED else chosen(run.settings, run.pipeline, model, run.as_of.date())
        if found and model_digest:
            found = replace(found, digest=model_digest)
        days = days_between(first.date(), last.date())
        score_range(run, Order(days, found, "newest" if restate else "recorded", chunk), click.echo)
        click.echo(f"to publish the newest of them: scoreline publish {pipeline} --day {last.date()}")
