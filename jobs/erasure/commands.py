"""The command that erases a key."""

import sys
from typing import TYPE_CHECKING

import click

from jobs.erasure.words import shown
from jobs.spec import load_pipelines, settings
from jobs.start import declared_pipeline

if TYPE_CHECKING:
    from jobs.erasure.scope import Scope


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="[PIPELINE] KEY")
@click.option("--all", "everywhere", is_flag=True, help="Of all pipelines there are, and sources there will be.")
@click.option("--entity-key", default="", help="With --all: the column whose value KEY is, where pipelines differ.")
@click.option("--reason", default="", help="Why; it is put on record, and must not show the key.")
def erase(words: tuple[str, ...], everywhere: bool, entity_key: str, reason: str) -> None:  # noqa: FBT001  reason: click passes flags so
    """Erase KEY (- reads it from standard input) from all that a pipeline keeps, for good.

    With it go the pipelines of the same entity key that share a source, or with --all every pipeline of that key.
    """
    if len(words) != 1 + (not everywhere):
        raise click.UsageError("give PIPELINE and KEY, or --all and KEY")
    if entity_key and not everywhere:
        raise click.UsageError("--entity-key goes with --all: a pipeline has one of its own")
    key = words[-1] if words[-1] != "-" else sys.stdin.readline().rstrip("\r\n")
    if not key:
        raise click.UsageError("the key is empty")
    if shown(key).search(reason):
        raise click.UsageError("--reason shows the key, and would keep it on record: leave it out there")
    _erase(_scope(None if everywhere else words[0], entity_key), key, " ".join(reason.split()))


def _scope(pipeline: str | None, entity_key: str) -> "Scope":
    from jobs.erasure.scope import one_entity_key, scope_of, scope_of_all

    declared = load_pipelines(settings().pipelines)
    if pipeline is not None:
        return scope_of(declared_pipeline(pipeline)[0], declared)
    return scope_of_all(one_entity_key(entity_key, declared), declared)


def _erase(scope: "Scope", key: str, reason: str) -> None:
    from jobs.erasure.erase import Erasure, Place
    from jobs.erasure.tombstones import EVERY
    from jobs.erasure.undeclared import refuse_undeclared
    from jobs.lake import Lake
    from jobs.session import spark_session
    from serving.settings import settings as serving_settings
    from serving.store import Store

    found, serving = settings(), serving_settings()
    spark = spark_session("erase")
    try:
        with Store(serving.redis_url) as store:
            place = Place(Lake(spark, found.lake), found, store, serving.clock)
            if EVERY in scope.bars:
                refuse_undeclared(place.lake, store, found.reports, load_pipelines(found.pipelines))
            names = ", ".join(each.name for each in scope.pipelines)
            click.echo(f"a {scope.entity_key} of {names}, in the sources {', '.join(scope.sources)}")
            erasure = Erasure(place, scope, key, reason)
            for line in erasure.run():
                click.echo(f"  {line}")
            click.echo(f"  erased: {sum(erasure.found.values())} rows, lines, blocks and files; on record in erasures")
    finally:
        spark.stop()
