"""The commands that say why: of one score, and whether all of them can be computed again."""

import json
from datetime import datetime

import click

from jobs.errors import DataFault
from jobs.start import PIPELINE, instant, started_run


@click.command()
@PIPELINE
@click.argument("key")
@click.option("--at", callback=instant, metavar="TIME", help="The instant of the lookup, UTC; default: now.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def explain(pipeline: str, key: str, at: datetime | None, as_json: bool) -> None:  # noqa: FBT001  reason: click passes flags so
    """Say why KEY was answered with its score, and compute that again."""
    from serving.settings import settings as serving_settings

    now = serving_settings().clock.now()
    with started_run(pipeline, now.date(), "explain", "jobs.explain.explanation", "dalex") as run:
        from rich.console import Console

        from jobs.explain.explanation import explain as explain_subject
        from jobs.explain.explanation import look
        from jobs.explain.screen import Screen
        from jobs.explain.screen import as_json as plain

        subject = look(run, key, at or now)
        for line in subject.gone:
            click.echo(f"{pipeline}: {line}", err=True)
        told = explain_subject(run, subject)
        if as_json:
            click.echo(json.dumps(plain(pipeline, told), indent=2))
        else:
            Screen(pipeline, told).show(Console())


@click.command()
@PIPELINE
@click.option("--sample", default=1000, show_default=True, type=click.IntRange(1, 100_000), help="How many scores.")
@click.option("--seed", default=0, show_default=True, help="Another one draws others.")
def reproduce(pipeline: str, sample: int, seed: int) -> None:
    """Compute scores on record again, drawn at random, and fail where a bit differs."""
    from serving.settings import settings as serving_settings

    with started_run(pipeline, serving_settings().clock.now().date(), "reproduce", "jobs.explain.reproduce") as run:
        from jobs.explain.reproduce import drawn
        from jobs.explain.reproduce import reproduce as reproduce_sample

        rows = drawn(run, sample, seed)
        gone = list(rows.gone())
        for line in gone:
            click.echo(f"{pipeline}: {line}", err=True)
        found = reproduce_sample(run, rows)
        for line in found.gone():
            gone.append(line)
            click.echo(f"{pipeline}: {line}", err=True)
        click.echo("\n".join(found.table()))
        found.require_agreement()
        if not found.replays:
            raise DataFault(f"{pipeline}: nothing could be computed again: {'; '.join(gone)}")


EXPLAINING = (explain, reproduce)
