"""Replays: scores drawn from all that are on record, computed again, and their bits compared."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from pyspark.sql import functions as F

from jobs.errors import DataFault, ReplayDiffers
from jobs.explain.recompute import Models, Replay, replays
from jobs.explain.recorded import ScoreRow, all_scores, rows_of, seen_by_models
from jobs.run import Run

COLUMNS = ("as of", "kind", "replayed", "scores the same", "features the same", "differ")
MOST_NAMED = 20


@dataclass(frozen=True)
class Sample:
    """Scores drawn at random, and the models that made them."""

    rows: list[ScoreRow]
    models: Models

    def gone(self) -> Iterator[str]:
        """Give a line for each model that is not to be had: its scores cannot be computed again."""
        for model, fault in self.models.gone.items():
            many = sum(row.model == model for row in self.rows)
            yield f"{many} of {len(self.rows)} cannot be computed again: {fault}"


@dataclass(frozen=True)
class Reproduction:
    """Replays of a pipeline, to be told by date, and why others of the sample could not be computed."""

    pipeline: str
    replays: Sequence[Replay]
    faults: Mapping[ScoreRow, str]

    def gone(self) -> Iterator[str]:
        """Give a line for each reason why scores whose model is there could not be computed again."""
        for fault, many in sorted(Counter(self.faults.values()).items()):
            yield f"{many} cannot be computed again: {fault}"

    def table(self) -> Iterator[str]:
        """Give a line for each date and kind of row, the newest date last, and one for all."""
        groups: dict[tuple[date, str], list[Replay]] = defaultdict(list)
        for replay in self.replays:
            groups[replay.row.date, replay.row.kind].append(replay)
        rows = [COLUMNS, *(_line(f"{day}", kind, some) for (day, kind), some in sorted(groups.items()))]
        rows.append(_line("all", "", self.replays))
        widths = [max(len(row[place]) for row in rows) for place in range(len(COLUMNS))]
        for row in rows:
            yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()

    def require_agreement(self) -> None:
        """Raise `ReplayDiffers` where a bit differs, naming whose."""
        wrong = [replay for replay in self.replays if not replay.agrees]
        if not wrong:
            return
        named = "; ".join(map(_named, wrong[:MOST_NAMED]))
        more = f"; and {len(wrong) - MOST_NAMED} more" if len(wrong) > MOST_NAMED else ""
        raise ReplayDiffers(
            f"{self.pipeline}: {len(wrong)} of {len(self.replays)} scores are not what their inputs give: "
            f"{named}{more}. Was features.sql changed without another model, a table changed by hand, or another key "
            "erased from whose events too they were computed? "
            f"`scoreline explain {self.pipeline} KEY --at TIME` has more on one of them"
        )


def drawn(run: Run, many: int, seed: int) -> Sample:
    """Draw `many` of all scores on record, each as likely as any other; the same ones for the same seed and tables.

    Raises:
        DataFault: there are none.
    """
    scores = all_scores(run.lake, run.pipeline.name)
    ordered = F.xxhash64("key", "as_of", "kind", "events_version", "superseded_at", F.lit(seed))
    rows = rows_of(None if scores is None else scores.orderBy(ordered, "key", "as_of").limit(many))
    if not rows:
        raise DataFault(
            f"{run.pipeline.name} has no scores to compute again; run `scoreline score {run.pipeline.name} --day D`"
        )
    return Sample(rows, Models.of(run, rows))


def reproduce(run: Run, sample: Sample) -> Reproduction:
    """Compute a sample again, as far as its models, tables and features are there."""
    seen = seen_by_models(run.lake, run.pipeline.name, sample.rows)
    found = replays(run, sample.rows, sample.models, seen)
    return Reproduction(run.pipeline.name, found.done, found.faults)


def _line(day: str, kind: str, some: Sequence[Replay]) -> tuple[str, ...]:
    seen = [replay for replay in some if replay.seen is not None]
    features = f"{sum(not replay.differing for replay in seen)} of {len(seen)} on record"
    scores, wrong = sum(replay.same_score for replay in some), sum(not replay.agrees for replay in some)
    return day, kind, str(len(some)), str(scores), features, str(wrong)


def _named(replay: Replay) -> str:
    row, what = replay.row, ", ".join(replay.differing)
    score = "" if replay.same_score else f"score {row.score!r} is {replay.again.score if replay.again else None!r} now"
    return f"{row.key} as of {row.as_of:%Y-%m-%dT%H:%M:%S%z} ({row.kind}): {', '.join(filter(None, (score, what)))}"
