"""How what takes long to append gets in beside live events: it asks for way, and they wait a moment."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from jobs.errors import Fenced
from jobs.stream.tail import Marked, Tail

WAY = "way"  # as an app's version in the table's log: odd while somebody asks for it
WAIT_SECONDS = 20.0
LOOK_SECONDS = 0.05


@contextmanager
def way_through(path: str) -> Iterator[None]:
    """Have live appends to the table at `path` wait while the block lasts.

    Raises:
        Fenced: others appended at the same moment, again and again, so that nobody could be asked.
    """
    _say(path, odd=1)
    try:
        yield
    finally:
        with suppress(Fenced):  # nobody waits for longer than WAIT_SECONDS
            _say(path, odd=0)


class Way:
    """The way that who appends live events makes for others: once for each who asks, who may be dead by now."""

    def __init__(self) -> None:
        self.made = 0

    def make(self, tail: Tail) -> None:
        """Wait while somebody asks for it, for WAIT_SECONDS at most, as far as `tail` knows by now."""
        deadline = time.monotonic() + WAIT_SECONDS
        while (asked := tail.written(WAY) or 0) % 2 and asked != self.made:
            if time.monotonic() > deadline:
                self.made = asked
            time.sleep(LOOK_SECONDS)
            tail.follow()


def _say(path: str, odd: int) -> None:
    tail = Tail(path)

    def made() -> Marked:
        following = (tail.written(WAY) or 0) + 1
        return tail.schema.empty_table(), {WAY: following + (following + odd) % 2}

    tail.commit(made)
