"""The log of a table as it is after some hours of live appends."""

import os
import time
from datetime import timedelta
from pathlib import Path

from jobs.stream.live import LiveEvents
from tests.jobs.shop import NOW, SECOND, rows


def aged(path: Path, age: timedelta) -> None:
    then = time.time() - age.total_seconds()
    os.utime(path, (then, then))


def log_of(path: str) -> list[Path]:
    """Return the commits that the log of a table still has."""
    return sorted(file for file in Path(path, "_delta_log").glob("*.json") if file.stem.isdigit())


def go_by(path: str, commits: int = 130) -> None:
    """Have live appends, and thereby a checkpoint; whatever is there before is of some time ago."""
    live = LiveEvents(path)
    for file in log_of(path):
        aged(file, timedelta(hours=1))
    for number in range(commits):
        live.append(rows((f"{number % 30:05d}", "1.00")), NOW + SECOND + number * SECOND / 1000)
