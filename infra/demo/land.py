"""Lays out the CDNOW purchases as an upstream system would deliver them: one CSV a day under a landing folder."""

import argparse
import gzip
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

from infra.embedded.places import VAR
from infra.embedded.settings import settings

PURCHASES = Path(__file__).with_name("CDNOW_master.txt.gz")
FIRST_DAY, LAST_DAY = date(1997, 1, 1), date(1998, 6, 30)
HEADER = "customer_id,purchase_date,cds,amount"


@dataclass(frozen=True)
class Landed:
    """What is in the landing folder now: days asked for, their purchases, and how many files were new."""

    days: int
    purchases: int
    new: int


def land(landing: Path, first: date, last: date) -> Landed:
    """Write the files of the days from `first` to `last`, both included, each at once by a rename."""
    purchases = by_day()
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    new = sum(deliver(landing / f"transactions/date={day}/transactions.csv", purchases[day]) for day in days)
    return Landed(len(days), sum(len(purchases[day]) for day in days), new)


def by_day() -> dict[date, list[str]]:
    """Return the CSV lines of each day, in the order of the data; a day without a purchase has none."""
    days: dict[date, list[str]] = defaultdict(list)
    for day, line in rows():
        days[day].append(line)
    return days


def rows() -> Iterator[tuple[date, str]]:
    """Yield each purchase as its day and its CSV line; customer ids keep their leading zeros."""
    with gzip.open(PURCHASES, "rt", encoding="ascii") as lines:
        next(lines)
        for line in lines:
            customer, on, cds, amount = line.split()
            day = datetime.strptime(on + "+0000", "%Y%m%d%z").date()
            yield day, f"{customer},{day},{cds},{amount}"


def deliver(path: Path, lines: list[str]) -> bool:
    """Make the file appear whole or not at all; False when it is there with this content."""
    content = "\n".join([HEADER, *lines, ""]).encode()
    if path.is_file() and path.read_bytes() == content:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{os.getpid()}.part")
    unfinished.write_bytes(content)
    unfinished.replace(path)
    return True


def main() -> None:
    """Read the command line and land the days that it names."""
    parser = argparse.ArgumentParser(prog="python -m infra.demo.land", description=__doc__)
    parser.add_argument("--from", dest="first", type=date.fromisoformat, default=FIRST_DAY, metavar="DAY")
    parser.add_argument("--to", dest="last", type=date.fromisoformat, default=LAST_DAY, metavar="DAY")
    parser.add_argument("--landing", type=Path, default=settings().landing or VAR / "landing", metavar="FOLDER")
    asked = parser.parse_args()
    landed = land(asked.landing, asked.first, asked.last)
    print(f"{landed.purchases} purchases of {landed.days} days in {asked.landing}, {landed.new} of the files new")


if __name__ == "__main__":
    main()
