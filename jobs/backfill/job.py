"""The backfill of a range: dates in parts, each part in one pass; a part at fault in halves, until a date is alone."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property

from expectations.errors import CheckBroken, ExpectationsFailed
from jobs.choice import unrecorded
from jobs.errors import BackfillIncomplete, DataFault, Fenced, ScorelineError, TakenOver
from jobs.recorded import Recorded, recorded
from jobs.registry import ModelVersion, VerifiedArtefact, fetch
from jobs.run import Dates, Run, Staging
from jobs.score import Reading, Wish, newest_versions, pins, score_dates

LOG = logging.getLogger(__name__)
OF_DATES = (DataFault, ExpectationsFailed, CheckBroken, Fenced)  # what may be the fault of some dates of a part alone
SHOWN = 5


@dataclass(frozen=True)
class Order:
    """What is asked for: the days, the model (None: of each date the one on record), and how many dates at a time."""

    days: Sequence[date]
    model: ModelVersion | None
    reading: Reading
    chunk: int


@dataclass(frozen=True)
class Task:
    """A date to score: its run, the model to score it with, and the versions of the tables to read."""

    run: Run
    model: ModelVersion
    versions: dict[str, int]

    @property
    def way(self) -> tuple[object, ...]:
        """What dates that are scored in one pass have in common."""
        return self.model.name, self.model.version, self.model.digest, *sorted(self.versions.items())


def backfill(run: Run, order: Order, say: Callable[[str], None]) -> None:
    """Score the days of `order` for the pipeline of `run`, and `say` how it goes on, a line at a time.

    What is done stays so when this is killed, and is not done again unless `order` reads anew. Nothing is published.

    Raises:
        BackfillIncomplete: dates were at fault; all others are scored.
        TakenOver: another attempt at the same range began.
        DataFault: a source was never ingested.
    """
    _Backfill(run, order, say).work()


@dataclass
class _Backfill:
    """One attempt; `faults` has what was wrong with dates, `done` counts those that have their scores."""

    run: Run
    order: Order
    say: Callable[[str], None]
    faults: dict[date, Exception] = field(default_factory=dict)
    done: int = 0
    artefacts: dict[ModelVersion, VerifiedArtefact] = field(default_factory=dict)

    def work(self) -> None:
        for part in self._parts(self._tasks()):
            self._score_left(part)
        total = len(self.order.days)
        if self.faults:
            raise _incomplete(self.run.pipeline.name, self.faults, total)
        self.say(f"all {total} dates are scored")

    def _tasks(self) -> list[Task]:
        """Return the dates that are not done."""
        runs = [replace(self.run, day=day) for day in self.order.days]
        tasks = self._open(runs)
        if self.done:
            self.say(f"{self.done} of {len(runs)} dates have the scores of their model already")
        return tasks

    def _open(self, runs: list[Run]) -> list[Task]:
        """Return which of the runs are not done, with what they are to be scored from as the tables are now."""
        before = recorded(self.run.settings, self.run.pipeline, [run.as_of.date() for run in runs])
        newest = newest_versions(self.run)
        return [task for run in runs if (task := self._task(run, newest, before.get(run.as_of.date())))]

    def _task(self, run: Run, newest: dict[str, int], before: Recorded | None) -> Task | None:
        model = self.order.model or (before.model if before else None)
        if model is None:
            self.faults[run.as_of.date()] = unrecorded(run.pipeline, run.as_of.date())
            return None
        if self.order.reading == "newest":
            return Task(run, model, newest)
        if before and (before.model.version, before.model.digest) == (model.version, model.digest):
            self.done += 1
            return None
        return Task(run, model, pins(newest, before))

    def _parts(self, tasks: list[Task]) -> Iterator[list[Task]]:
        groups: dict[tuple[object, ...], list[Task]] = {}
        for task in tasks:
            groups.setdefault(task.way, []).append(task)
        for group in groups.values():
            yield from (group[start : start + self.order.chunk] for start in range(0, len(group), self.order.chunk))

    def _score_left(self, part: list[Task]) -> None:
        """Score what others did not do meanwhile, from what is on record by now."""
        for some in self._parts(self._open([task.run for task in part])):
            self._score(some)

    def _score(self, part: list[Task]) -> None:
        """Score a part, or those dates of it that are not at fault."""
        dates, began = Dates([task.run for task in part], self._staging), time.monotonic()
        try:
            artefact = self._artefact(part[0].model)
        except DataFault as fault:  # of all its dates
            self._give_up(part, fault)
            return
        try:
            score_dates(dates, Wish(artefact, self.order.reading))
        except TakenOver:  # whoever did goes on: to begin again would only do the same to them
            raise
        except OF_DATES as fault:
            self._divide(part, fault)
        else:
            self.done += len(part)
            seconds, total = time.monotonic() - began, len(self.order.days)
            self.say(f"{dates}: {len(part)} dates in {seconds:.1f} s; {self.done} of {total} are done")

    def _divide(self, part: list[Task], fault: Exception) -> None:
        left = self._open([task.run for task in part]) if isinstance(fault, Fenced) else part
        if len(part) == 1:
            if left:
                self._give_up(part, fault)
            return
        LOG.info("%d dates in halves: %s", len(part), fault)
        middle = len(left) // 2
        for half in (left[:middle], left[middle:]):
            self._score_left(half)

    def _give_up(self, part: list[Task], fault: Exception) -> None:
        self.faults |= {task.run.as_of.date(): fault for task in part}
        self.say(f"{Dates([task.run for task in part], self._staging)}: {fault}")

    @cached_property
    def _staging(self) -> Staging:
        first, last = self.order.days[0], self.order.days[-1]
        return Staging(self.run.lake, f"staging/{self.run.pipeline.name}/backfill/{first}--{last}")

    def _artefact(self, model: ModelVersion) -> VerifiedArtefact:
        if model not in self.artefacts:
            self.artefacts[model] = fetch(self.run.settings.mlflow_uri, model.name, model.version, model.digest)
        return self.artefacts[model]


def _incomplete(pipeline: str, faults: dict[date, Exception], total: int) -> BackfillIncomplete:
    """Return what to say at the end: of each fault once, which dates have it."""
    dates: dict[str, list[str]] = {}
    for as_of, fault in sorted(faults.items()):
        dates.setdefault(str(fault), []).append(str(as_of))
    told = "; ".join(f"{', '.join(those)}: {what}" for what, those in list(dates.items())[:SHOWN])
    more = f"; and {len(dates) - SHOWN} other faults, above" if len(dates) > SHOWN else ""
    hopeless = all(getattr(fault, "exit_code", 1) == DataFault.exit_code for fault in faults.values())
    return BackfillIncomplete(
        f"{pipeline}: {len(faults)} of {total} dates are not scored, and all others are: {told}{more}. "
        "Mend that and run the same again: what is done is not done again, unless it restates",
        DataFault.exit_code if hopeless else ScorelineError.exit_code,
    )
