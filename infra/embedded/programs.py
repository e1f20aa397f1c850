"""Programs that the demo runs in the foreground: each with its output in a log of its own."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from infra.embedded.errors import DemoFault
from infra.embedded.places import LOGS, VENV
from infra.embedded.progress import Step
from infra.embedded.settings import ROOT

REASON = "scoreline: error: "


def run_program(name: str, command: Sequence[str], environment: dict[str, str], step: Step) -> str:
    """Run a program of the virtual environment and return what it wrote; the step shows its newest line.

    Raises:
        DemoFault: it failed; the message has its own reason and the log to look at.
    """
    log = LOGS / f"demo-{name}.log"
    lines: list[str] = []
    with (
        log.open("w") as kept,
        subprocess.Popen(
            [VENV / command[0], *command[1:]],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        try:
            for line in process.stdout or ():
                kept.write(line)
                lines.append(line)
                step.watch(line.strip())
        except BaseException:
            process.terminate()
            raise
    if process.returncode != 0:
        raise failed(command, process.returncode, lines, log)
    return "".join(lines)


def show_program(name: str, command: Sequence[str], environment: dict[str, str]) -> None:
    """Run a program of the virtual environment that a person watches: its output is ours.

    Raises:
        DemoFault: it failed; the message has its own reason and the log to look at.
    """
    log = LOGS / f"demo-{name}.log"
    with (
        log.open("w+") as kept,
        subprocess.Popen(
            [VENV / command[0], *command[1:]], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stderr=kept
        ) as process,
    ):
        try:
            process.wait()
        except BaseException:
            process.terminate()
            raise
        kept.seek(0)
        if process.returncode != 0:
            raise failed(command, process.returncode, kept.readlines(), log)


def failed(command: Sequence[str], code: int, lines: Sequence[str], log: Path) -> DemoFault:
    """Return the fault of a program that ended with `code` and wrote `lines`."""
    return DemoFault(f"`{' '.join(command)}` failed ({code}): {reason(lines)}\n  see {log}")


def reason(lines: Sequence[str]) -> str:
    """Return the line in which a job says why it failed, else its last one."""
    told = [line.strip() for line in lines if line.strip()]
    last = next((line for line in reversed(told) if REASON in line), told[-1] if told else "it said nothing")
    return last[max(last.find(REASON), 0) :]


def task_reason(log: Path) -> str:
    """Return why a task failed: Airflow's log of it has one JSON object a line."""
    if not log.is_file():
        return "it left no log"
    return reason([worded(line) for line in log.read_text(errors="replace").splitlines()])


def worded(line: str) -> str:
    """Return what a line of a task's log says."""
    try:
        body = json.loads(line)
    except ValueError:
        return line
    return str(body.get("event", line)) if isinstance(body, dict) else line
