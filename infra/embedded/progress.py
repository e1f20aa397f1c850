"""Progress for a person: live bars in a terminal, plain lines in a log; and the seconds of each step."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


@dataclass
class Step:
    """A step at work: what it notes and how far it is."""

    console: Console
    title: str
    bars: Progress | None
    task: TaskID | None
    noted: str = ""

    def note(self, text: str) -> None:
        """Show what the step is doing; a log gets each text once."""
        if text == self.noted:
            return
        self.noted = text
        if self.bars is not None and self.task is not None:
            self.bars.update(self.task, note=text[: self.console.width // 2])
        else:
            self.console.print(f"  {text}", markup=False, soft_wrap=True)

    def watch(self, text: str) -> None:
        """Show a line of output that only a terminal has room for."""
        if self.bars is not None:
            self.note(text)

    def reached(self, done: int, total: int) -> None:
        """Show how far it is."""
        if self.bars is not None and self.task is not None:
            self.bars.update(self.task, completed=done, total=total)


@dataclass
class Steps:
    """The steps of one program, in order, each with its seconds."""

    console: Console
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Show that a step begins, and how long it took."""
        with self._timed(title):
            if self.console.is_terminal:
                with self._bars() as bars:
                    yield Step(self.console, title, bars, bars.add_task(title, total=None, note=""))
            else:
                self.console.print(f"{title} ...", markup=False)
                yield Step(self.console, title, None, None)

    @contextmanager
    def shown(self, title: str) -> Iterator[None]:
        """Show that a step begins which has the screen for itself, and how long it took."""
        with self._timed(title):
            self.console.print(f"{title} ...", markup=False)
            yield

    @contextmanager
    def _timed(self, title: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[title] = time.monotonic() - start
        self.console.print(f"[green]done[/green] {title} [dim]{self.seconds[title]:.1f} s[/dim]", soft_wrap=True)

    def _bars(self) -> Progress:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=20), TimeElapsedColumn())
        return Progress(*columns, TextColumn("[dim]{task.fields[note]}"), console=self.console, transient=True)
