"""The rails: how far a generation is from what went live last, and how far it may be."""

from collections.abc import Iterator
from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.lake import Lake
from jobs.publication.partition import Partition, rows_of
from jobs.quality import Measure
from jobs.spec import Rails
from serving.head import Head


@dataclass(frozen=True)
class Finding:
    """What was found of one rail: a share, the largest that is allowed, and the numbers in words."""

    rail: str
    share: float
    allowed: float
    words: str

    @property
    def held(self) -> bool:
        """Whether the rail held."""
        return self.share <= self.allowed

    @property
    def measure(self) -> Measure:
        """The finding for the quality table."""
        return Measure("rails", self.rail, "", self.held, f"{self.share:.15g}")

    def __str__(self) -> str:
        return f"{self.words} ({self.rail}: {self.allowed:g} is the most)"


def findings(rails: Rails, partition: Partition, before: Head | None, lake: Lake) -> list[Finding]:
    """Return what is found of each rail against `before`, which went live last; None where nothing did."""
    rows, nulls = partition.tally.rows, partition.nulls
    found = [Finding("nulls", nulls / (rows + nulls), rails.nulls, f"{nulls} of {rows + nulls} rows without a score")]
    if before is not None:
        found += _counted(rails, rows, before)
        found += _changed(rails, partition.scores, before, lake)
    return found


def _counted(rails: Rails, rows: int, before: Head) -> Iterator[Finding]:
    if before.rows == 0:
        return
    words = f"{rows} scores, where generation {before.token} has {before.rows}"
    yield Finding("fall", max(0, before.rows - rows) / before.rows, rails.fall, words)
    yield Finding("rise", max(0, rows - before.rows) / before.rows, rails.rise, words)


def _changed(rails: Rails, scores: DataFrame, before: Head, lake: Lake) -> Iterator[Finding]:
    """Compare with the rows that the generation was made of; where that cannot be, nothing is known to be alike."""
    if rails.changed is None:
        return
    old = rows_of(lake, before)
    if old is None:
        words = f"the lake has no more what generation {before.token} was made of"
        yield Finding("changed", 1.0, rails.changed, words)
        return
    both = scores.alias("new").join(old.alias("old"), "key")
    moved = F.expr("abs(CAST(new.score AS DOUBLE) - CAST(old.score AS DOUBLE))") > (rails.tolerance or 0.0)
    common, changed = both.agg(F.count("*"), F.count_if(moved)).collect()[0]
    share = changed / common if common else 1.0
    words = f"{changed} of the {common} scores differ from those of generation {before.token}"
    yield Finding("changed", share, rails.changed, words)
