"""The machine that was measured on, in one line for people."""

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import psutil

from tests.conftest import redis_binary


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
