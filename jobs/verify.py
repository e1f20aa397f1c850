"""Verify: the blocks of the live generation, each compared with what the rows that it was made of say."""

from jobs import generation as blocks
from jobs.errors import DataFault, GenerationDiffers
from jobs.generation import Generation
from jobs.partition import rows_of
from jobs.run import Run
from serving.clock import instant
from serving.head import Head


def verify(run: Run, redis_url: str, head: Head, *, repair: bool = False) -> str:
    """Return in words that all blocks of the live generation are right, or were made right by `repair`.

    Raises:
        GenerationDiffers: some are missing or differ, and were not repaired.
        DataFault: the lake does not have any more what the generation was made of.
    """
    rows = rows_of(run.lake, head)
    name, what = head.pipeline, f"generation {head.token} as of {instant(head.as_of):%Y-%m-%d}"
    if rows is None:
        raise DataFault(
            f"scores/{name} has no more what {what} was made of: publish what it has now, "
            f"`scoreline publish {name} --day {run.day}`"
        )
    found = blocks.compare(rows, Generation(redis_url, name, head.token, head.layout), head.rows, repair=repair)
    wrong = found.lacking + found.differing
    if not wrong:
        return f"{name}: {what}: all {found.blocks} blocks are as the table says"
    said = (
        f"{name}: {what}: of {found.blocks} blocks {found.lacking} are missing and {found.differing} differ "
        f"(such as bucket {', '.join(map(str, found.examples))})"
    )
    if found.repaired < wrong:
        remedy = "another head went live meanwhile" if repair else f"`scoreline verify {name} --repair` mends them"
        raise GenerationDiffers(f"{said}; {found.repaired} repaired: {remedy}")
    return f"{said}; all are repaired"
