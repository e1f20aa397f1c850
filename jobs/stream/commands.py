"""The commands of the micro-batch path: start, stop and look at a stream."""

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from jobs.errors import DataFault, ScorelineError
from jobs.spec import Pipeline, settings
from jobs.start import PIPELINE, declared_pipeline

if TYPE_CHECKING:
    from jobs.lake import Lake
    from jobs.stream.turn import Turn
    from serving.stream import StreamRecord

STOP_SECONDS = 120


@click.group()
def stream() -> None:
    """The micro-batches that keep scores fresh between two runs."""


@stream.command()
@PIPELINE
@click.option("--rebuild", is_flag=True, help="Begin anew from the events table, and forget the checkpoint.")
@click.option("--reread", is_flag=True, help="Read the topic again, from the oldest message that it has.")
@click.option("--unless-stopped", is_flag=True, help="Do nothing where somebody stopped it: for supervisors.")
def start(pipeline: str, rebuild: bool, reread: bool, unless_stopped: bool) -> None:  # noqa: FBT001  reason: click passes flags so
    """Run the stream of a pipeline, until it is told to stop; there is one at a time."""
    from jobs.lake import Lake
    from jobs.session import spark_session
    from jobs.stream.service import listen, told_to_stop, wait_for_tables
    from jobs.stream.turn import Turn
    from serving.settings import settings as serving_settings
    from serving.store import Store

    declared, serving = _declared(pipeline), serving_settings()
    with Store(serving.redis_url) as store, told_to_stop() as stopping:
        turn = Turn(pipeline, store, serving.clock, stopping)
        if not turn.comes():
            return
        if not unless_stopped:
            turn.forget_stop()
        elif turn.was_stopped():
            click.echo(f"{pipeline}: somebody stopped the stream; `scoreline stream start {pipeline}` starts it")
            return
        if not wait_for_tables([settings().table(name) for name in declared.tables], stopping):
            return
        lake = Lake(spark_session(f"{pipeline} stream"), settings().lake)
        listen(stopping)
        try:
            if turn.comes():  # another one may have been started at the same time
                with turn.on_record():
                    _forget(lake, declared, rebuild=rebuild, reread=reread)
                    _run(lake, declared, turn)
        finally:
            lake.spark.stop()


def _forget(lake: "Lake", declared: Pipeline, *, rebuild: bool, reread: bool) -> None:
    from jobs.stream.checkpoint import forget
    from jobs.stream.topic import begin_again

    if rebuild:
        forget(lake, declared)
    if reread:
        begin_again(lake, declared)


def _run(lake: "Lake", declared: Pipeline, turn: "Turn") -> None:
    from jobs.stream.checkpoint import current
    from jobs.stream.loader import Loader
    from jobs.stream.service import Service
    from jobs.stream.site import Site
    from jobs.stream.topic import place

    checkpoint = current(lake, declared)
    site = Site(declared, lake, settings(), turn.clock, turn.store, checkpoint.query_id)
    loader = Loader(site, place(lake, declared), turn.stopping) if declared.topic else None
    Service(site, turn.stopping, loader).run(checkpoint)


@stream.command()
@PIPELINE
def stop(pipeline: str) -> None:
    """Have a stream end between two micro-batches, wherever it runs, and wait until it has."""
    from jobs.stream.turn import outlasting
    from serving.keys import stream_wish_key
    from serving.settings import settings as serving_settings
    from serving.store import Store

    _declared(pipeline)
    serving = serving_settings()
    with Store(serving.redis_url) as store:
        store.ask("SET", stream_wish_key(pipeline), 1)
        if record := outlasting(pipeline, store, serving.clock, STOP_SECONDS):
            raise ScorelineError(
                f"{pipeline}: the stream has not said in {STOP_SECONDS} s that it has stopped: see its log, or end "
                f"its process ({record.process}); what a micro-batch had not done is done at the next start"
            )
    click.echo(f"{pipeline}: the stream has stopped")


@stream.command()
@PIPELINE
def status(pipeline: str) -> None:
    """Say how a stream is: whether it runs, how far it has read, and how fresh its scores were."""
    from serving.settings import settings as serving_settings
    from serving.store import Store

    declared, serving = _declared(pipeline), serving_settings()
    with Store(serving.redis_url) as store:
        record = store.stream(pipeline)
    if record is None:
        raise ScorelineError(f"{pipeline}: no stream has said anything: `scoreline stream start {pipeline}`")
    click.echo("\n".join(_lines(declared, record, serving.clock.microseconds())))


@stream.command()
@PIPELINE
def watch(pipeline: str) -> None:
    """Look at a stream once: have it started again where it is dead, and fail where somebody has to look after it."""
    from jobs.stream.watch import Post
    from serving.settings import settings as serving_settings
    from serving.store import Store

    declared, serving = _declared(pipeline), serving_settings()
    with Store(serving.redis_url) as store:
        click.echo(Post(declared, settings(), store, serving.clock).look())


def _declared(pipeline: str) -> Pipeline:
    declared, _ = declared_pipeline(pipeline)
    if declared.stream is None:
        raise DataFault(f"{pipeline}.yaml declares no stream: write stream: to keep its scores fresh between two runs")
    return declared


def _lines(declared: Pipeline, record: "StreamRecord", now: int) -> Iterator[str]:
    silent = timedelta(microseconds=now - record.told_at)
    state = "DEAD" if record.state == "running" and not record.is_alive(now) else record.state
    yield f"{declared.name}: {state}, last heard of {silent.total_seconds():.0f} s ago; process {record.process}"
    lag = f", the oldest for {record.lag_seconds(now):.0f} s" if record.behind else ""
    yield f"  events       up to append {record.version}; {record.behind} not read{lag}"
    yield f"  micro-batch  {record.batch}; last progress {(now - record.progressed_at) / 1e6:.0f} s ago"
    if record.fault:
        yield f"  ended by     {record.fault}"
    if record.waits_for:
        yield f"  waits        {record.waits_for}"
    yield f"  since start  {record.keys} scores, {record.quarantined} rows of features quarantined"
    if declared.topic:
        yield f"  topic        {declared.topic.topic}: {record.loaded} messages loaded, {record.rejected} quarantined"
    shares = {share: record.freshness.quantile(share) for share in (0.5, 0.95)}
    if None not in shares.values():
        told = ", ".join(f"{share:.0%} within {bound:g} s" for share, bound in shares.items())
        yield f"  freshness    {told} of the event's arrival"
