"""The replay as a person watches it: who buys, how their score changes, and how many seconds that took."""

import time
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table

from serving.answers import Score
from serving.client import Client

SHOWN = 15
LOG_SECONDS = 5.0


@dataclass
class Change:
    """What an event changed for one customer: the answer before it, and since; `seconds` from its commit on."""

    key: str
    arrived_at: datetime
    committed: float
    before: Score | None
    after: Score | None = None
    seconds: float = 0.0

    @property
    def cells(self) -> tuple[str, ...]:
        """Return customer, score before, score now, as_of, seconds; a customer without a score of their own is new."""
        known = self.before is not None and self.before.source != "fallback"
        before = f"{self.before.score:.4f}" if self.before is not None and known else "new"
        if self.after is None:
            return self.key, before, "", "", ""
        return self.key, before, f"{self.after.score:.4f}", f"{self.after.as_of:%H:%M:%S}", f"{self.seconds:.1f}"


@dataclass
class Watch:
    """Follows the customers who buy, by the same lookups as any app makes."""

    client: Client
    pipeline: str
    waiting: dict[str, Change] = field(default_factory=dict)
    newest: deque[Change] = field(default_factory=lambda: deque(maxlen=SHOWN))
    seconds: list[float] = field(default_factory=list)

    def answers(self, keys: list[str]) -> dict[str, Score]:
        """Return what is known of some keys now."""
        found = self.client.scores(self.pipeline, keys)
        return {each.key: each for each in found if isinstance(each, Score)}

    def follow(self, before: dict[str, Score], keys: list[str], arrived_at: datetime) -> None:
        """Begin to wait for what the events that were just committed change."""
        now = time.monotonic()
        for key in keys:
            self.waiting[key] = Change(key, arrived_at, now, before.get(key))

    def poll(self) -> None:
        """Ask for those who are waited for."""
        if not self.waiting:
            return
        now = time.monotonic()
        for key, answer in self.answers(list(self.waiting)).items():
            change = self.waiting[key]
            if answer.source == "stream" and answer.as_of >= change.arrived_at:
                change.after, change.seconds = answer, now - change.committed
                self.newest.append(self.waiting.pop(key))
                self.seconds.append(change.seconds)

    def title(self) -> str:
        """Return in a line what was seen so far."""
        ordered, many = sorted(self.seconds), len(self.seconds)
        told = (
            f": half within {ordered[many // 2]:.1f} s, 95 % within {ordered[many * 95 // 100]:.1f} s" if many else ""
        )
        return f"{self.pipeline}: {many} scores changed as customers bought, {len(self.waiting)} are waited for{told}"

    def __rich__(self) -> RenderableType:
        table = Table(title=self.title(), title_justify="left")
        for heading in ("customer", "score before", "score now", "as of (UTC)", "seconds"):
            table.add_column(heading, justify="left" if heading == "customer" else "right")
        for change in reversed(self.newest):
            table.add_row(*change.cells)
        return table


class Screen:
    """Shows a watch: live in a terminal, as a line now and then in a log."""

    def __init__(self, console: Console, watch: Watch) -> None:
        self.console, self.watch = console, watch
        self.live = Live(watch, console=console, refresh_per_second=8) if console.is_terminal else None
        self.logged = time.monotonic()

    def __enter__(self) -> "Screen":
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *fault: object) -> None:
        if self.live is not None:
            self.live.stop()
        else:
            self.console.print(self.watch)

    def refresh(self) -> None:
        """Show what is new."""
        self.watch.poll()
        if self.live is None and time.monotonic() - self.logged > LOG_SECONDS:
            self.logged = time.monotonic()
            self.console.print(self.watch.title(), markup=False, soft_wrap=True)
