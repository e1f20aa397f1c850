"""An explanation as people read it: a screen with bars in a terminal, plain lines in a log, JSON for machines."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.explain.contributions import ORDERS, Contributions
from jobs.explain.explanation import Explanation
from jobs.explain.recorded import ScoreRow
from serving.clock import instant

BAR = 24  # characters of the longest bar
MOST_CHANGES = 8
MINUTE = "%Y-%m-%d %H:%M:%S UTC"


@dataclass(frozen=True)
class Screen:
    """Shows one explanation."""

    pipeline: str
    told: Explanation

    def show(self, console: Console) -> None:
        """Print it: with colours and bars in a terminal, as lines elsewhere."""
        for line in self.lines():
            console.print(Text(line), soft_wrap=True)
        made = self.told.contributions
        if made is None:
            return
        console.print(Text(meaning(made)), soft_wrap=True)
        if console.is_terminal:
            console.print(self._bars(made))
            return
        for name, value, part in self._parts(made):
            console.print(Text(f"  {name} = {shown(value)}: {points(part)}"), soft_wrap=True)

    def lines(self) -> Iterator[str]:
        """Give the lines of all but the contributions."""
        yield from self._served()
        yield from self._origin()
        yield from self._place()
        yield from self._change()
        yield from self._replay()

    def _served(self) -> Iterator[str]:
        subject, served = self.told.subject, self.told.subject.served
        what = f"{self.pipeline} of {subject.key} at {served.at:{MINUTE}}"
        if served.score is None:
            yield f"{what}: no score was served: {served.note}"
        else:
            yield f"{what}: {served.score:.6f}, from the {served.source}{f' ({served.note})' if served.note else ''}"
        if served.head is not None:
            head = served.head
            yield f"live then: generation {head.token} as of {instant(head.as_of):%Y-%m-%d}, epoch {head.epoch}"

    def _origin(self) -> Iterator[str]:
        row = self.told.subject.served.row
        if row is None:
            return
        yield f"score {row.score:.6f} as of {row.as_of:{MINUTE}}, {row.kind}, run {row.run_id}{_stamps(row)}"
        yield f"model {row.model.name} version {row.model.version}, digest {row.model.digest}"
        dimensions = "".join(f", dimensions/{name} up to append {number}" for name, number in row.dimension_versions)
        yield f"read: events up to append {row.events_version}{dimensions}"

    def _place(self) -> Iterator[str]:
        place = self.told.place
        if place is not None:
            share = 100 * place.lower / place.of
            yield (
                f"place {place.higher + 1} of {place.of}: above {share:.1f} % of the population, "
                f"whose mean is {place.mean:.4f}"
            )

    def _change(self) -> Iterator[str]:
        change, row = self.told.change, self.told.subject.served.row
        if change is None or row is None:
            return
        last = change.row
        yield (
            f"before: {last.score:.6f} as of {last.as_of:{MINUTE}} ({last.kind}); "
            f"since then {points(row.score - last.score)}"
        )
        shortly = [f"{name} {shown(old)} -> {shown(new)}" for name, old, new in change.features]
        more = f", and {len(shortly) - MOST_CHANGES} more" if len(shortly) > MOST_CHANGES else ""
        yield f"changed since: {', '.join(shortly[:MOST_CHANGES]) or 'no feature'}{more}"
        if change.row.model != row.model:
            yield f"and the model: it was {change.row.model.name} version {change.row.model.version}"

    def _replay(self) -> Iterator[str]:
        replay = self.told.replay
        if self.told.fault:
            yield f"cannot be computed again: {self.told.fault}"
        if replay is None:
            return
        if replay.again is None:
            yield "computed again: DIFFERS: features.sql gives no row for this key any more"
            return
        score = "the same bits" if replay.same_score else f"DIFFERS: {replay.again.score!r}"
        if replay.seen is None:
            seen = "of the stream there are none on record" if replay.row.kind == "stream" else "none are on record"
        else:
            seen = f"DIFFER: {', '.join(replay.differing)}" if replay.differing else "the same bits"
        yield f"computed again from events, features.sql and model: score {score}; features {seen}"

    def _parts(self, made: Contributions) -> list[tuple[str, object, float]]:
        values = self.told.features or {}
        ordered = sorted(made.parts.items(), key=lambda each: -abs(each[1]))
        return [(name, values.get(name), part) for name, part in ordered]

    def _bars(self, made: Contributions) -> Table:
        table = Table(box=None, pad_edge=False)
        for heading, justify in (("feature", "left"), ("value", "right"), ("", "left"), ("points", "right")):
            table.add_column(heading, justify="right" if justify == "right" else "left")
        longest = max((abs(part) for part in made.parts.values()), default=0.0) or 1.0
        for name, value, part in self._parts(made):
            length = round(BAR * abs(part) / longest)
            left, right = (" " * BAR, "█" * length) if part >= 0 else ("█" * length, "")
            bar = Text(f"{left:>{BAR}}│{right:<{BAR}}", style="green" if part >= 0 else "red")
            table.add_row(name, shown(value), bar, points(part))
        return table


def meaning(made: Contributions) -> str:
    """Return what the numbers beside the features mean."""
    return (
        f"Points of probability by which each feature moves the score from {100 * made.mean:.2f} %, the mean of "
        f"{made.sampled} keys drawn from the same population; all add up to the score. Shapley values over {ORDERS} "
        f"random orders, the largest standard error {100 * made.error:.2f}; they explain the model, not the customer:"
    )


def points(part: float) -> str:
    """Return a part of a score in points of probability, with its sign."""
    return f"{100 * part:+.2f} points"


def shown(value: object) -> str:
    """Return a feature's value, shortly; what is undefined is called so."""
    if value is None or value != value:  # noqa: PLR0124  reason: NaN alone is not itself
        return "undefined"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def as_json(pipeline: str, told: Explanation) -> dict[str, Any]:
    """Return all of an explanation as plain values."""
    subject, served, replay, made = told.subject, told.subject.served, told.replay, told.contributions
    head = served.head
    return {
        "pipeline": pipeline,
        "key": subject.key,
        "at": served.at.isoformat(),
        "served": {
            "source": served.source,
            "score": served.score,
            "generation": head.token if head else None,
            "generation_as_of": instant(head.as_of).isoformat() if head else None,
            "epoch": head.epoch if head else None,
            "note": served.note,
        },
        "gone": list(subject.gone),
        "row": _row(served.row),
        "features": _features(told),
        "place": vars(told.place) if told.place else None,
        "before": _before(told),
        "contributions": {**vars(made), "parts": dict(made.parts), "orders": ORDERS} if made else None,
        "fault": told.fault,
        "replay": None
        if replay is None
        else {
            "score": replay.again.score if replay.again else None,
            "same_score": replay.same_score,
            "same_features": None if replay.seen is None else not replay.differing,
            "differing": list(replay.differing),
        },
    }


def _features(told: Explanation) -> dict[str, object] | None:
    if told.features is None:
        return None
    return {name: _plain(told.features.get(name)) for name in told.subject.names}


def _before(told: Explanation) -> dict[str, object] | None:
    if told.change is None:
        return None
    changed = {name: [_plain(old), _plain(new)] for name, old, new in told.change.features}
    return {"row": _row(told.change.row), "changed": changed}


def _row(row: ScoreRow | None) -> dict[str, object] | None:
    if row is None:
        return None
    model, dimensions = vars(row.model), dict(row.dimension_versions)
    return {name: _plain(value) for name, value in vars(row).items()} | {
        "model": model,
        "dimension_versions": dimensions,
    }


def _plain(value: object) -> object:
    """Return what JSON has: instants as text, NaN as null."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float) and value != value:  # noqa: PLR0124  reason: NaN alone is not itself
        return None
    return value if isinstance(value, str | int | float | None) else str(value)


def _stamps(row: ScoreRow) -> str:
    since = f", written {row.scored_at:{MINUTE}}" if row.scored_at else ""
    return since + (f", replaced {row.superseded_at:{MINUTE}}" if row.superseded_at else "")
