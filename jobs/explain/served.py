"""What an app was answered for a key at an instant: by the ledger, and by the rows that stood then."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from jobs.explain.recorded import ScoreRow
from jobs.publication.ledger import History, Turn
from serving.clock import instant
from serving.head import Head

Source = Literal["batch", "stream", "fallback", "nothing"]


@dataclass(frozen=True)
class Served:
    """The answer. `row` is the score that it gave, or what was on record where nothing was served; `note` says why."""

    at: datetime
    source: Source
    head: Head | None
    row: ScoreRow | None
    note: str = ""

    @property
    def score(self) -> float | None:
        """The score that was served, None for none."""
        if self.source == "fallback" and self.head and self.head.fallback:
            return self.head.fallback.score
        return self.row.score if self.row and self.source != "nothing" else None


def live_at(history: History, at: datetime) -> Turn | None:
    """Return what was live at an instant: of all that had gone live by then, the last in the order of heads."""
    return max((turn for turn in history.turns if turn.at <= at), key=lambda turn: turn.order, default=None)


def served_at(history: History, rows: Sequence[ScoreRow], at: datetime, has_scores: Callable[[date], bool]) -> Served:
    """Return what a reader of the key of `rows` was answered at `at`; `rows` are all that are on record of it.

    `has_scores` says whether any key's scores as of a date are on record.
    """
    turn = live_at(history, at)
    if turn is None:
        return Served(at, "nothing", None, _newest(rows, at), "no generation was live then")
    if turn.head is None:
        note = f"the head of generation {turn.token} is on record in a form that this version cannot read"
        return Served(at, "nothing", None, _newest(rows, at), note)
    fresher, own = _fresher(rows, turn.head, at), _in_generation(rows, turn.head)
    if fresher is not None:
        return Served(at, "stream", turn.head, fresher)
    if own is not None:
        return Served(at, "batch", turn.head, own)
    if not has_scores(instant(turn.head.as_of).date()):
        when = f"{instant(turn.head.as_of):%Y-%m-%d}"
        note = f"no scores as of {when}, which generation {turn.token} was made of, are on record any more"
        return Served(at, "nothing", turn.head, _newest(rows, at), note)
    return _without_a_score(turn.head, rows, at)


def _without_a_score(head: Head, rows: Sequence[ScoreRow], at: datetime) -> Served:
    when, name = f"{instant(head.as_of):%Y-%m-%d}", f"generation {head.token}"
    if any(row.as_of == instant(head.as_of) and row.kind != "stream" for row in rows):
        note = f"{name} was made of other scores as of {when} than those that are still on record"
        return Served(at, "nothing", head, _newest(rows, at), note)
    known = f"the key was not in {name}, whose population was that as of {when}"
    if head.fallback is None:
        return Served(at, "nothing", head, _newest(rows, at), f"{known}: 404, as the pipeline declared no fallback")
    kind = "the pipeline's constant" if head.fallback.kind == "constant" else f"the mean score as of {when}"
    return Served(at, "fallback", head, None, f"{known}: {kind}, from the head of that generation")


def _in_generation(rows: Sequence[ScoreRow], head: Head) -> ScoreRow | None:
    """Return the row that a generation was made of: from the same model and events, as it stood at the publication."""
    origin = (head.model, head.events_version)
    made = [
        row
        for row in rows
        if row.kind != "stream" and row.as_of == instant(head.as_of) and (row.model, row.events_version) == origin
    ]
    published = instant(head.published_at)
    later = [row for row in made if row.superseded_at is None or row.superseded_at > published]
    # One that was brought back was published anew from rows that had been replaced before.
    return min(later, key=_until, default=None) or max(made, key=_until, default=None)


def _until(row: ScoreRow) -> float:
    return row.superseded_at.timestamp() if row.superseded_at else float("inf")


def _fresher(rows: Sequence[ScoreRow], head: Head, at: datetime) -> ScoreRow | None:
    """Return the newest score of the stream that was there by then, if it is fresher than the generation's."""
    if head.overlay is None:
        return None
    live = (row for row in rows if row.kind == "stream" and row.model == head.model and row.written_at <= at)
    newer = (row for row in live if row.as_of > instant(head.as_of))
    return max(newer, key=lambda row: (row.as_of, row.events_version), default=None)


def _newest(rows: Sequence[ScoreRow], at: datetime) -> ScoreRow | None:
    return max((row for row in rows if row.stood_at(at)), key=lambda row: (row.as_of, row.events_version), default=None)


def before(rows: Sequence[ScoreRow], row: ScoreRow, at: datetime) -> ScoreRow | None:
    """Return the key's last score before that of `row`, of a run or of the stream, as it stood at an instant."""
    return _newest([each for each in rows if each.as_of < row.as_of], at)
