"""The machine that was measured on: what it is, and whether it had its cores to itself."""

import os
import platform
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import psutil

from tests.conftest import redis_binary

T = TypeVar("T")

MOST_STOLEN = 0.05  # of the time in which cores were wanted
TRIES = 3


class Stolen:
    """What other guests of the host take from here on."""

    def __init__(self) -> None:
        self._before = _cpu_seconds()

    @property
    def share(self) -> float:
        """Their share of the time in which cores were wanted."""
        stolen, wanted = (now - then for now, then in zip(_cpu_seconds(), self._before, strict=True))
        return stolen / wanted if wanted else 0.0


@dataclass
class Neighbours:
    """Other guests of the host: how many rounds were taken again for them, and how many were kept all the same.

    They come and go within seconds, so that one side of a comparison would have them and the other not.
    """

    retaken: int = 0
    kept: int = 0

    def apart(self, measure: Callable[[], T], say: Callable[[str], None]) -> T:
        """Return what a round measured, of all sides; it is taken again, a few times, where the host took the cores."""
        for left in reversed(range(TRIES)):
            stolen, found = Stolen(), measure()
            share = stolen.share
            if share <= MOST_STOLEN:
                return found
            say(f"other guests of the host had {share:.0%} of the time that was wanted")
            self.retaken += left > 0
        self.kept += 1
        return found

    @property
    def note(self) -> str:
        """What a reader of the result must know."""
        return f"; {self.retaken} rounds taken again for other guests, {self.kept} kept" if self.retaken else ""


def _cpu_seconds() -> tuple[float, float]:
    """Return the seconds of all cores that other guests had while we wanted them, and all that we wanted."""
    times = psutil.cpu_times()
    stolen = getattr(times, "steal", 0.0)
    return stolen, times.user + times.system + stolen


def described() -> str:
    """Return cores, processor, memory, load and the versions of what was measured."""
    memory = psutil.virtual_memory().total / 2**30
    redis = re.search(r"v=(\S+)", _said(redis_binary(), "--version"))
    packages = [f"{name} {version(name)}" for name in ("pyspark", "fastapi", "uvicorn")]
    programs = [f"Python {platform.python_version()}", f"Redis {redis[1] if redis else '?'}", *packages]
    return (
        f"{os.cpu_count()} cores of {_processor()}, {memory:.0f} GiB, {platform.system()} {platform.release()}; load "
        f"{os.getloadavg()[0]:.1f} at the start; {', '.join(programs)}"
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", info.read_text()) if info.exists() else None
    return found[1] if found else _said("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()


def _said(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""
