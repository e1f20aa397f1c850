"""The machine that was measured on: what it is, and whether it had its cores to itself."""

import os
import platform
import re
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import psutil

from tests.conftest import redis_binary

T = TypeVar("T")

MOST_STOLEN = 0.04  # of the time of all cores
TRIES = 5


def undisturbed(measure: Callable[[], T], say: Callable[[str], None]) -> T:
    """Return what a run measured; it is taken again, some times, where the host gave the cores to other guests.

    Those come and go within seconds, so that one side of a comparison would have them and the other not.
    """
    for _ in range(TRIES):
        stolen, total = _cpu_seconds()
        found = measure()
        stolen, total = (now - before for now, before in zip(_cpu_seconds(), (stolen, total), strict=True))
        if stolen <= MOST_STOLEN * total:
            break
        say(f"the host took {stolen / total:.0%} of the time for other guests")
    return found


def _cpu_seconds() -> tuple[float, float]:
    """Return the seconds of all cores that other guests of the host had while we wanted them, and all seconds."""
    times = psutil.cpu_times()
    return getattr(times, "steal", 0.0), sum(times)


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
