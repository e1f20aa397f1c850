"""The command line: the jobs, and what operators do."""

import json
import logging
import sys
from datetime import UTC, date, datetime, time
from typing import Any

import click

from jobs.analysts.commands import ANALYSTS
from jobs.backfill.commands import backfill
from jobs.check.commands import check
from jobs.erasure.commands import erase
from jobs.errors import ScorelineError, SpecError
from jobs.explain.commands import EXPLAINING
from jobs.log import configure_logging
from jobs.new.commands import new
from jobs.publication.operations import OPERATIONS
from jobs.spec import Pipeline, load_pipelines, missing_files, settings
from jobs.start import DAY, DIGEST, MODEL, PIPELINE, RESTATE, RUN_ID, declared_pipeline, require_version, started_run
from jobs.stream.commands import stream

ONE_DAY = click.option("--day", type=DAY, required=True, help="The data interval [day, day + 1); its as_of is day + 1.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="scoreline")
def cli() -> None:
    """Scoreline: precomputed machine-learning scores, from table to key."""


@cli.command()
@PIPELINE
@RUN_ID
@click.option("--day", type=DAY, help="One day to ingest.")
@click.option("--from", "first", type=DAY, help="First day of a range, which is loaded in one job.")
@click.option("--to", "last", type=DAY, help="Last day of the range.")
def ingest(pipeline: str, run_id: str, day: datetime | None, first: datetime | None, last: datetime | None) -> None:
    """Bring delivered files into the events table."""
    begin, end = first or day, last or day
    if begin is None or end is None or (day and (first or last)):
        raise click.UsageError("give either --day D or --from D --to D")
    if end < begin:
        raise click.UsageError(f"--to {end.date()} is before --from {begin.date()}")
    with started_run(pipeline, end.date(), run_id, "jobs.ingest", "expectations.gate") as run:
        from jobs.ingest import ingest as ingest_days
        from jobs.landing import days_between

        ingest_days(run, days_between(begin.date(), end.date()))


@cli.command()
@PIPELINE
@RUN_ID
@ONE_DAY
@MODEL
@DIGEST
@RESTATE
def score(pipeline: str, run_id: str, day: datetime, model: str, model_digest: str, restate: bool) -> None:  # noqa: FBT001, PLR0913, PLR0917  reason: click passes flags so, and an argument for each option
    """Score the population at the end of a day."""
    require_version(model, model_digest)
    with started_run(pipeline, day.date(), run_id, "jobs.score", "expectations.gate") as run:
        from jobs.choice import chosen
        from jobs.score import score as score_day

        found = chosen(run.settings, run.pipeline, model, run.as_of.date())
        score_day(run, found.version, model_digest or found.digest, "newest" if restate else "recorded")


@cli.command()
@PIPELINE
@RUN_ID
@ONE_DAY
@click.option(
    "--publish",
    "how",
    type=click.Choice(["newest", "no", "force"]),
    default="newest",
    show_default=True,
    help="newest: unless a newer date is live; no: fill history only; force: against rails and order.",
)
@click.option("--reason", default="", help="Why, on record; force needs one.")
def publish(pipeline: str, run_id: str, day: datetime, how: str, reason: str) -> None:
    """Publish the scores of a day to Redis."""
    why = " ".join(reason.split())
    if how == "force" and not why:
        raise click.UsageError("--publish force goes on record: say why with --reason")
    with started_run(pipeline, day.date(), run_id, "jobs.publication.publish") as run:
        from jobs.publication.publish import publish as publish_day
        from jobs.publication.publish import warrant
        from serving.settings import settings as serving_settings

        click.echo(publish_day(run, serving_settings().redis_url, warrant(how, why)))


@cli.command("replay-events")
@PIPELINE
@click.option("--from", "first", type=DAY, required=True, help="First day whose files are played.")
@click.option("--to", "last", type=DAY, help="Last day; default: the first.")
@click.option("--day-seconds", default=60.0, show_default=True, type=click.FloatRange(min=0.25), help="A day takes.")
@click.option("--again", is_flag=True, help="Let events that are known already happen once more, as new ones.")
def replay_events(pipeline: str, first: datetime, last: datetime | None, day_seconds: float, again: bool) -> None:  # noqa: FBT001  reason: click passes flags so
    """Play delivered files as live events, and watch the scores change."""
    with started_run(pipeline, first.date(), "replay", "jobs.stream.replay") as run:
        from jobs.stream.replay import Replay, replay
        from serving.settings import settings as serving_settings

        played = replay(
            run, serving_settings().redis_url, Replay(first.date(), (last or first).date(), day_seconds, again)
        )
    click.echo(f"{played} events of {pipeline} played")


@cli.command()
@PIPELINE
@click.option("--as-of", type=DAY, required=True, help="What the training may know: labels mature at this instant.")
@click.option("--alias", help="Alias to give to the model, such as challenger; default: the one that runs resolve.")
@click.option("--if-missing", is_flag=True, help="Do nothing where the alias names a version already.")
def train(pipeline: str, as_of: datetime, alias: str | None, if_missing: bool) -> None:  # noqa: FBT001  reason: click passes flags so
    """Train, compare, report, and register a model under an alias."""
    from jobs.session import spark_session
    from jobs.training import has_champion
    from jobs.training import train as train_model

    declared, found = declared_pipeline(pipeline)
    declared = _under(declared, alias or declared.model.alias)
    if if_missing and has_champion(declared, found):
        click.echo(f"{declared.model.name}@{declared.model.alias} is there; nothing to do")
        return
    version = train_model(spark_session(f"train {pipeline}"), declared, found, _instant(as_of.date()))
    click.echo(f"{version.name} version {version.version} is the {declared.model.alias}")


@cli.group()
def model() -> None:
    """The registered models."""


@model.command("resolve")
@PIPELINE
@RUN_ID
@MODEL
@click.option("--recorded-as", help="Name under which the run's model is recorded; default: the run id.")
@click.option("--day", type=DAY, help="The run's day; without it, it is for many, each with its own recorded model.")
def resolve_model(pipeline: str, run_id: str, model: str, recorded_as: str | None, day: datetime | None) -> None:
    """Resolve the model of a run to a version, once a run, and print it as JSON."""
    from jobs.choice import RECORDED, chosen_for_run
    from jobs.run import as_of_day

    declared, found = declared_pipeline(pipeline)
    if model == RECORDED and day is None:
        click.echo(json.dumps({"name": declared.model.name, "version": RECORDED, "digest": ""}))
        return
    as_of = as_of_day((day or datetime.now(UTC)).date()).date()
    version = chosen_for_run(found, declared, model, (recorded_as or run_id, as_of))
    click.echo(json.dumps({"name": version.name, "version": version.version, "digest": version.digest}))


@model.command("promote")
@PIPELINE
@click.argument("version")
def promote_model(pipeline: str, version: str) -> None:
    """Let the alias name a registered VERSION, once its artefact proves to be what was registered."""
    from jobs.registry import promote
    from serving.settings import settings as serving_settings

    declared, found = declared_pipeline(pipeline)
    newest = declared.schedule.newest_as_of(serving_settings().clock.now())
    promoted = promote(found.mlflow_uri, declared, version, newest)
    click.echo(f"{promoted.name} version {promoted.version} is the {declared.model.alias}")


@cli.command()
@PIPELINE
@RUN_ID
@ONE_DAY
def summary(pipeline: str, run_id: str, day: datetime) -> None:
    """Sum up what a run did, from the tables and without Spark."""
    from jobs.summary import summarise

    declared, found = declared_pipeline(pipeline)
    click.echo(summarise(found, declared, day.date(), run_id))


@cli.command()
@PIPELINE
def maintain(pipeline: str) -> None:
    """Put small files of the pipeline's tables together, and remove what no version has had for hours or a month."""
    from jobs.lake import Lake
    from jobs.maintain import maintain as maintain_tables
    from jobs.session import spark_session

    declared, found = declared_pipeline(pipeline)
    spark = spark_session(f"maintain {pipeline}")
    try:
        click.echo("\n".join(maintain_tables(Lake(spark, found.lake), declared)))
    finally:
        spark.stop()


@cli.command()
def pipelines() -> None:
    """Read and check all pipelines' YAML files, and whether the SQL and the suites that they need are there."""
    found = settings()
    declared = load_pipelines(found.pipelines)
    missing = [line for pipeline in declared.values() for line in missing_files(found, pipeline)]
    if missing:
        raise SpecError("\n".join(missing))
    for name, pipeline in declared.items():
        click.echo(f"{name}\t{pipeline.schedule.cron}\t{pipeline.owner}\t{pipeline.description}")


@cli.command()
def schema() -> None:
    """Print the JSON Schema of a pipeline's YAML, for editors."""
    click.echo(json.dumps(Pipeline.model_json_schema(), indent=2))


@cli.group("api-key")
def api_key() -> None:
    """The keys with which apps read scores."""


@api_key.command("new")
@click.argument("name")
@click.option("--pipeline", "names", multiple=True, required=True, help="One that the key may read; * for all of them.")
def new_api_key(name: str, names: tuple[str, ...]) -> None:
    """Make a key for NAME: print it, once, and the line that the service's file of keys needs."""
    from serving.apikeys import new_key

    key, line = new_key(name, names)
    click.echo(f"key, shown only now: {key}")
    click.echo(f"line for the file that SCORELINE_API_KEYS_FILE names: {line}")


@cli.command()
def serve() -> None:
    """Run the lookup service (the same as `python -m serving`)."""
    import os

    os.execv(sys.executable, [sys.executable, "-m", "serving"])  # noqa: S606  reason: our own module, no shell


def _under(pipeline: Pipeline, alias: str) -> Pipeline:
    """Return the pipeline with another alias of its model."""
    try:
        model = type(pipeline.model)(name=pipeline.model.name, alias=alias)
    except ValueError as error:
        raise click.BadParameter(f"'{alias}' is not an alias that MLflow takes", param_hint="--alias") from error
    return pipeline.model_copy(update={"model": model})


def _instant(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


for operation in (*OPERATIONS, *EXPLAINING, *ANALYSTS, backfill, check, erase, new, stream):
    cli.add_command(operation)


def main() -> None:
    """Run a command; a fault ends with one line that says what, where and what to do, and its exit code."""
    configure_logging()
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except Exception as error:  # noqa: BLE001  reason: what is not ours goes on, in fail()
        fail(error)


def fail(error: Exception) -> None:
    """End the process with one line for people, and the exit code that says whether a retry can help."""
    known: Any = getattr(error, "exit_code", None)
    text = " ".join(str(error).split())
    if known is None and not _is_ours(error):
        logging.getLogger(__name__).error("unexpected", exc_info=error)
        text = f"{type(error).__name__}: {text[:300]}; nobody foresaw this: the log above has where it happened"
    click.echo(f"scoreline: error: {text}", err=True)
    sys.exit(known or ScorelineError.exit_code)


def _is_ours(error: Exception) -> bool:
    return any(kind.__module__.split(".")[0] in ("jobs", "serving", "expectations") for kind in type(error).__mro__)
