"""The commands of operators: see what is live, go back, verify, repair, bring back."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

import click

from jobs.errors import DataFault
from jobs.spec import Pipeline, load_pipelines, settings
from jobs.start import PIPELINE, RUN_ID, declared_pipeline, started_run

if TYPE_CHECKING:
    from jobs.publication.ledger import Ledger
    from serving.head import Head
    from serving.store import Store


@dataclass(frozen=True)
class _Place:
    """A pipeline, its Redis and its ledger."""

    pipeline: Pipeline
    store: "Store"
    ledger: "Ledger"


@contextmanager
def _place(pipeline: Pipeline) -> Iterator[_Place]:
    from jobs.publication.ledger import Ledger
    from serving.settings import settings as serving_settings
    from serving.store import Store

    serving = serving_settings()
    with Store(serving.redis_url) as store:
        yield _Place(pipeline, store, Ledger.of(settings(), pipeline.name, serving.clock))


@click.command()
@click.argument("pipeline", required=False)
def status(pipeline: str | None) -> None:
    """Say of all pipelines, or of one: what ran, failed, is live, is kept, how the stream is, and what to do."""
    from jobs.publication.lately import Lately
    from jobs.publication.status import Status

    declared = [declared_pipeline(pipeline)[0]] if pipeline else load_pipelines(settings().pipelines).values()
    for one in declared:
        with _place(one) as place:
            click.echo("\n".join(Status(one, place.store, place.ledger).lines()))
            now = place.ledger.clock.now()
            click.echo("\n".join(f"  {line}" for line in Lately(settings(), one, place.store).lines(now)))


@click.command()
@PIPELINE
@click.option("--last", default=20, show_default=True, type=click.IntRange(min=1), help="How many, the newest first.")
def generations(pipeline: str, last: int) -> None:
    """List the generations of a pipeline, and whether they are there to go back to."""
    from jobs.publication.status import Status

    with _place(declared_pipeline(pipeline)[0]) as place:
        click.echo("\n".join(Status(place.pipeline, place.store, place.ledger).table(last)))


@click.command()
@PIPELINE
@RUN_ID
@click.option("--to", type=click.IntRange(min=1), help="Generation to go back to; default: the one live before.")
@click.option("--reason", default="", help="Why; it is put on record.")
def rollback(pipeline: str, run_id: str, to: int | None, reason: str) -> None:
    """Let a generation that was live before be live again, at once."""
    from jobs.publication.rollback import Wish, roll_back

    with _place(declared_pipeline(pipeline)[0]) as place:
        head = roll_back(place.pipeline, place.store, place.ledger, Wish(to, " ".join(reason.split()), run_id))
        click.echo(f"{pipeline}: {_named(head)} is live again, epoch {head.epoch}")


@click.command()
@PIPELINE
@RUN_ID
@click.option("--repair", is_flag=True, help="Write blocks that are missing or differ once more.")
def verify(pipeline: str, run_id: str, repair: bool) -> None:  # noqa: FBT001  reason: click passes flags so
    """Compare the blocks of the live generation with the scores table."""
    with _place(declared_pipeline(pipeline)[0]) as place:
        head, url = place.store.head(pipeline), place.store.url
    if head is None:
        raise DataFault(f"{pipeline}: nothing is live to verify; `scoreline status {pipeline}` says why")
    with started_run(pipeline, _day(head), run_id, "jobs.publication.verify") as run:
        from jobs.publication.verify import repair as repair_live
        from jobs.publication.verify import verify as verify_live

        click.echo((repair_live if repair else verify_live)(run, url, head))


@click.command()
@PIPELINE
@RUN_ID
def republish(pipeline: str, run_id: str) -> None:
    """Bring back what went live last, after Redis was emptied or lost it."""
    from jobs.publication.standing import Standing

    with _place(declared_pipeline(pipeline)[0]) as place:
        standing, url = Standing.seen(place.store, place.ledger, pipeline), place.store.url
    lost = standing.lost
    if lost is None and standing.live is None:
        force = " --publish force --reason WHY" if standing.fault else ""
        raise DataFault(f"{pipeline}: nothing ever went live; run `scoreline publish {pipeline} --day D{force}`")
    if lost is None:
        click.echo(f"{pipeline}: what went live last is live; nothing to do (`scoreline verify` compares its blocks)")
        return
    with started_run(pipeline, _day(lost), run_id, "jobs.publication.publish") as run:
        from jobs.publication.publish import NEEDLESS, Warrant, publish

        verdict = publish(run, url, Warrant("republished", f"Redis had lost {_named(lost)}", lost))
        overtaken, back = f"{_named(lost)} was overtaken meanwhile", f"the scores as of {run.as_of:%Y-%m-%d}"
        click.echo(f"{pipeline}: {verdict}: {overtaken if verdict == NEEDLESS else back}")


OPERATIONS = (status, generations, rollback, verify, republish)


def _named(head: "Head") -> str:
    from serving.clock import instant

    return f"generation {head.token} as of {instant(head.as_of):%Y-%m-%d}"


def _day(head: "Head") -> date:
    from serving.clock import instant

    return instant(head.as_of).date() - timedelta(days=1)
