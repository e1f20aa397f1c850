"""What a benchmark gives: a median beside its peer's; and the table and the file that people read."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from rich.table import Table


class Skipped(Exception):
    """A benchmark that cannot run here: the message says what is missing and what to do about it."""


@dataclass(frozen=True)
class Result:
    """A median beside its peer's; `ratio` is how many times better, above 1 where ours is.

    What was not measured is None. `note` has the spread, and what a reader must know to judge the number.
    """

    name: str
    value: float | None
    unit: str
    peer: str = ""
    peer_value: float | None = None
    ratio: float | None = None
    note: str = ""


def compared(name: str, unit: str, ours: Sequence[float], peer: str, theirs: Sequence[float]) -> Result:
    """Return the medians of two series of which more is better, such as rates."""
    value, other = median(ours), median(theirs)
    return Result(name, value, unit, peer, other, value / other, f"{spread(ours)}; peer {spread(theirs)}")


def compared_small(name: str, unit: str, ours: Sequence[float], peer: str, theirs: Sequence[float]) -> Result:
    """Return the medians of two series of which less is better, such as bytes or milliseconds."""
    value, other = median(ours), median(theirs)
    return Result(name, value, unit, peer, other, other / value, f"{spread(ours)}; peer {spread(theirs)}")


def alone(name: str, unit: str, values: Sequence[float]) -> Result:
    """Return the median of a series that has no peer."""
    return Result(name, median(values), unit, note=spread(values))


def spread(values: Sequence[float]) -> str:
    """Return least and greatest of a series, and how many there are."""
    return f"{shown(min(values))} to {shown(max(values))} in {len(values)}"


def shown(value: float | None) -> str:
    """Return a number with as many digits as say something; a dash for none."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def table(results: Sequence[Result]) -> Table:
    """Return the results as a table."""
    out = Table(title="Medians of alternating runs", caption="ratio: how many times better than the peer")
    for column in ("name", "median", "unit", "ratio", "peer's median", "peer"):
        out.add_column(
            column, justify="right" if column in ("median", "ratio", "peer's median") else "left", no_wrap=True
        )
    for one in results:
        out.add_row(one.name, shown(one.value), one.unit, shown(one.ratio), shown(one.peer_value), one.peer)
    return out


def save(results: Sequence[Result], path: Path) -> None:
    """Write the results as JSON: what was measured by the last run, and nothing older."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n")
