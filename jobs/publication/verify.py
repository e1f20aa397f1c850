"""Verify and repair: the blocks of the live generation, each compared with what the rows that it was made of say."""

from dataclasses import replace

from pyspark.sql import DataFrame

from jobs.errors import DataFault, GenerationDiffers
from jobs.publication import generation as blocks
from jobs.publication.generation import Comparison, Generation
from jobs.publication.ledger import REPAIRED, Entry, Ledger
from jobs.publication.partition import rows_of
from jobs.run import Run
from jobs.tables import publications_table
from serving.clock import instant
from serving.head import Head


def verify(run: Run, redis_url: str, head: Head) -> str:
    """Return in words that all blocks of the live generation are right.

    Raises:
        GenerationDiffers: some are missing or differ.
        DataFault: the lake does not have any more what the generation was made of.
    """
    found = blocks.compare(_rows(run, head), _generation(head, redis_url), head.rows)
    if found.wrong:
        raise GenerationDiffers(f"{_said(head, found)}: `scoreline verify {head.pipeline} --repair` mends them")
    return _said(head, found)


def repair(run: Run, redis_url: str, head: Head) -> str:
    """Write the blocks that are missing or differ once more, on record; return in words what was wrong, if anything.

    Raises:
        GenerationDiffers: some are missing or differ after that.
        DataFault: the lake does not have any more what the generation was made of.
    """
    rows, generation = _rows(run, head), _generation(head, redis_url)
    found = blocks.compare(rows, generation, head.rows)
    if not found.wrong:
        return _said(head, found)
    run.lake.create(publications_table(head.pipeline))
    event = replace(Entry.of(head, _said(head, found)), run_id=run.run_id)
    Ledger.of(run.settings, head.pipeline, run.clock).write([(REPAIRED, event)])
    written = blocks.repair(rows, generation, head.rows)
    after = blocks.compare(rows, generation, head.rows)
    if after.wrong:
        raise GenerationDiffers(
            f"{_said(head, after)} after {written} were repaired: another head went live meanwhile, or somebody else "
            f"writes there; `scoreline status {head.pipeline}` says what is live"
        )
    return f"{_said(head, found)}; all are repaired"


def _rows(run: Run, head: Head) -> DataFrame:
    rows = rows_of(run.lake, head)
    if rows is None:
        raise DataFault(
            f"scores/{head.pipeline} has no more what {_named(head)} was made of: publish what it has now, "
            f"`scoreline publish {head.pipeline} --day {run.day}`"
        )
    return rows


def _generation(head: Head, redis_url: str) -> Generation:
    return Generation(redis_url, head.pipeline, head.token, head.layout)


def _said(head: Head, found: Comparison) -> str:
    what = f"{head.pipeline}: {_named(head)}:"
    if not found.wrong:
        return f"{what} all {found.blocks} blocks are as the table says"
    examples = f"such as bucket {', '.join(map(str, found.examples))}"
    wrong = f"{found.lacking} are missing and {found.differing} differ ({examples})"
    return f"{what} of {found.blocks} blocks {wrong}"


def _named(head: Head) -> str:
    return f"generation {head.token} as of {instant(head.as_of):%Y-%m-%d}"
