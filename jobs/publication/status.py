"""What is live, kept and refused, in words: from Redis and the ledger, without Spark."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from jobs.publication.ledger import Generation, Ledger
from jobs.publication.standing import Standing
from jobs.spec import Pipeline
from serving.clock import instant
from serving.head import Head
from serving.store import Store

IN_HOURS = timedelta(days=3)
COLUMNS = ("generation", "as of", "scores", "model", "epoch", "went live", "is")
GONE = ("removed", "lost")  # on purpose, or with the Redis that it was in


@dataclass(frozen=True)
class Status:
    """What can be said of one pipeline."""

    pipeline: Pipeline
    store: Store
    ledger: Ledger

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self.pipeline.name

    def lines(self) -> Iterator[str]:
        """Give the lines of a short report: what is live, what is kept, what was refused, and what to do."""
        yield self.name
        standing = Standing.seen(self.store, self.ledger, self.name)
        yield from (f"  {line}" for line in self._live(standing))
        yield from (f"  {line}" for line in self._kept(standing))
        for as_of, refusal in standing.history.refused.items():
            yield f"  refused  {as_of}: {refusal.verdict}, {refusal.reason} ({_minute(instant(refusal.at))})"

    def table(self, most: int) -> Iterator[str]:
        """Give a line for each of the newest `most` generations, the newest first."""
        standing = Standing.seen(self.store, self.ledger, self.name)
        newest = reversed(standing.history.generations[-most:])
        rows = [COLUMNS, *(self._row(one, standing.live) for one in newest)]
        widths = [max(len(row[place]) for row in rows) for place in range(len(COLUMNS))]
        for row in rows:
            yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()

    def _live(self, standing: Standing) -> Iterator[str]:
        now, lost = self.ledger.clock.now(), standing.lost
        if standing.fault:
            yield f"UNREADABLE {standing.fault}"
        if standing.live is None:
            yield "live     nothing"
        else:
            yield from _described(standing.live, now)
            if not standing.history.has(standing.live):
                yield "         not on record yet: who let it go live is at it, or was cut off and is to be run again"
        if lost is not None:
            yield f"LOST     generation {lost.token} as of {_date(lost)} went live last, and Redis does not have that: "
            yield f"         `scoreline republish {self.name}` brings it back"

    def _kept(self, standing: Standing) -> Iterator[str]:
        """Give a line for each generation of which there is something to go back to."""
        for one in reversed(standing.history.generations):
            if not one.turns or _is_live(one, standing.live):
                continue
            state = self._state(one, standing.live)
            if state not in GONE:
                since = f"as of {one.as_of:%Y-%m-%d}, live since {_minute(one.turns[-1].at)}"
                yield f"kept     generation {one.token} {since}{state.removeprefix('present')}"

    def _row(self, one: Generation, live: Head | None) -> tuple[str, ...]:
        last = one.turns[-1] if one.turns else None
        head = last.head if last else None
        model, epoch = (f"{head.model.name} {head.model.version}", str(head.epoch)) if head else ("", "")
        at = _minute(last.at) if last else "never"
        return str(one.token), f"{one.as_of:%Y-%m-%d}", str(one.rows), model, epoch, at, self._state(one, live)

    def _state(self, one: Generation, live: Head | None) -> str:
        if one.removed:
            return "removed"
        if not one.turns and not _is_live(one, live):
            return ""
        there = self.store.count_blocks(self.name, one.token, range(one.buckets))
        whole = "live" if _is_live(one, live) else "present"
        if there == 0 and whole == "present":
            return "lost"
        return whole if there == one.buckets else f"{whole}, {one.buckets - there} of {one.buckets} blocks missing"


def _described(head: Head, now: datetime) -> Iterator[str]:
    age = _age(now - instant(head.as_of))
    yield f"live     generation {head.token} as of {_date(head)}, {age} old: {head.rows} scores, epoch {head.epoch}"
    yield f"         model {head.model.name} version {head.model.version}"
    yield f"         published {_minute(instant(head.published_at))} by run {head.run_id}"


def _is_live(one: Generation, live: Head | None) -> bool:
    return live is not None and live.token == one.token


def _date(head: Head) -> str:
    return f"{instant(head.as_of):%Y-%m-%d}"


def _minute(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _age(age: timedelta) -> str:
    hours = int(age / timedelta(hours=1))
    return f"{hours} h" if age < IN_HOURS else f"{age.days} days"
