"""When a process began, by a clock that nobody sets, and which life of the machine that was in."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import psutil

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
AFTER_NAME = 19  # of proc(5)'s fields of stat, `starttime` is the 22nd; the name, the 2nd, may hold anything but ")"


@cache
def boot() -> str:
    """Return what identifies this life of the machine: pids of an earlier one mean nothing now."""
    if BOOT_ID.is_file():
        return BOOT_ID.read_text().strip()
    if sys.platform == "darwin":
        session = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
        return subprocess.run(session, capture_output=True, text=True, check=False).stdout.strip()
    return ""


def began(pid: int) -> float:
    """Return when a process began, in seconds: on Linux since the boot, elsewhere since 1970.

    Raises:
        psutil.NoSuchProcess: there is no such process.
    """
    if not sys.platform.startswith("linux"):
        return float(psutil.Process(pid).create_time())
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError) as error:
        raise psutil.NoSuchProcess(pid) from error
    return int(stat.rpartition(")")[2].split()[AFTER_NAME]) / os.sysconf("SC_CLK_TCK")
