"""How a process of the tests kills or stops itself at a named step."""

import os
from collections.abc import Callable, Iterable
from threading import Timer
from typing import Any

import pytest

from jobs.publication.ledger import Entry, Ledger

Step = Callable[..., object]
Halt = Callable[[pytest.MonkeyPatch], None]


def halting(how: int) -> Step:
    """Return what sends this process the signal `how`."""
    return lambda *_: os.kill(os.getpid(), how)


def soon(step: Step) -> Step:
    """Return what lets a step be taken a moment later, in the middle of what goes on then."""
    return lambda *_: Timer(0.002, step).start()


def before(owner: Any, name: str, step: Step) -> Halt:
    """Return what lets a step be taken before a function, with its arguments."""
    return _around(owner, name, before=step)


def after(owner: Any, name: str, step: Step) -> Halt:
    """Return what lets a step be taken after a function, with its arguments."""
    return _around(owner, name, after=step)


def told(event: str, step: Step) -> Halt:
    """Return what lets a step be taken once the ledger has been told of `event`, and of nothing else."""
    real = Ledger.write

    def write(ledger: Ledger, events: Iterable[tuple[str, Entry]]) -> None:
        known = list(events)
        real(ledger, known)
        if {one for one, _ in known} == {event}:
            step()

    return lambda patch: patch.setattr(Ledger, "write", write)


def _nothing(*_: object) -> None: ...


def _around(owner: Any, name: str, before: Step = _nothing, after: Step = _nothing) -> Halt:
    real = getattr(owner, name)

    def with_steps(*given: Any, **named: Any) -> Any:
        before(*given)
        result = real(*given, **named)
        after(*given)
        return result

    return lambda patch: patch.setattr(owner, name, with_steps)
