"""What was served at an instant: by the heads that went live, and the rows that stood then."""

from dataclasses import replace
from datetime import date, timedelta

import pytest

from jobs.explain.recorded import ScoreRow
from jobs.explain.served import Served, before, live_at, served_at
from jobs.publication.ledger import Generation, History, Turn
from serving.clock import instant
from serving.head import Fallback, Head, Model, Overlay
from tests.serving.publishing import DAY as MICROS
from tests.serving.publishing import JUNE_2, head_for

HOUR = timedelta(hours=1)
MORNING = instant(JUNE_2 + MICROS)  # when generations go live
FIRST = replace(head_for("p", 1, {"k": 0.5}), overlay=Overlay(4), fallback=Fallback("constant", 0.05))
SECOND = replace(FIRST, token=2, as_of=JUNE_2 + MICROS, published_at=JUNE_2 + 2 * MICROS)
BATCH = ScoreRow("batch", "k", 0.5, instant(JUNE_2), FIRST.model, FIRST.events_version, (), "run")
LIVE = replace(BATCH, kind="stream", score=0.7, as_of=MORNING + HOUR, events_version=9)


def history(*heads: Head) -> History:
    turns = (Turn(head.token, instant(head.published_at), head.order, head) for head in heads)
    return History(
        tuple(Generation(turn.token, MORNING, 1, 1, turn.at, (turn,), removed=False) for turn in turns), (), {}
    )


def served(
    *rows: ScoreRow, after: timedelta = 2 * HOUR, heads: tuple[Head, ...] = (FIRST,), there: bool = True
) -> Served:
    return served_at(history(*heads), rows, MORNING + after, lambda _: there)


def test_the_head_of_the_time_counts_and_not_the_newest() -> None:
    both = history(FIRST, SECOND)
    assert live_at(both, MORNING - HOUR) is None
    found = [live_at(both, MORNING + at * HOUR) for at in (0, 23, 24)]
    assert [turn.token for turn in found if turn] == [1, 1, 2]


def test_a_rollback_is_by_its_epoch() -> None:
    back = replace(FIRST, epoch=2, published_at=SECOND.published_at)
    turn = live_at(history(SECOND, back), instant(SECOND.published_at))
    assert turn is not None
    assert turn.head == back


def test_the_generation_gives_way_to_what_is_fresher_once_that_is_written() -> None:
    assert served(BATCH, LIVE).row == LIVE
    assert served(BATCH, LIVE, after=HOUR / 2).row == BATCH
    late = replace(LIVE, scored_at=MORNING + 3 * HOUR)
    assert served(BATCH, late).source == "batch"
    assert served(BATCH, late, after=4 * HOUR).source == "stream"


@pytest.mark.parametrize(
    "row",
    [replace(LIVE, model=Model("propensity", "8", "other")), replace(LIVE, as_of=instant(JUNE_2))],
    ids=["another model", "no fresher"],
)
def test_other_rows_of_the_stream_do_not_count(row: ScoreRow) -> None:
    assert served(BATCH, row).row == BATCH


def test_without_an_overlay_the_stream_was_not_served() -> None:
    assert served(BATCH, LIVE, heads=(replace(FIRST, overlay=None),)).row == BATCH


def test_a_generation_keeps_the_row_that_it_was_made_of() -> None:
    was = replace(BATCH, kind="superseded", score=0.4, superseded_at=MORNING + HOUR)
    assert served(was, BATCH).row == was
    earlier = replace(was, score=0.3, superseded_at=MORNING - HOUR)
    assert served(was, earlier, BATCH).row == was
    assert served(earlier, replace(BATCH, events_version=99)).row == earlier, "it was brought back"


def test_a_generation_of_other_rows_is_said_to_be_so() -> None:
    found = served(replace(BATCH, events_version=99))
    assert found.source == "nothing"
    assert "made of other scores as of 1998-06-02" in found.note
    assert found.score is None


def test_who_is_not_in_the_generation_gets_its_fallback() -> None:
    found = served()
    assert (found.source, found.score, found.row) == ("fallback", 0.05, None)
    assert "the pipeline's constant" in found.note
    found = served(heads=(replace(FIRST, fallback=None),))
    assert (found.source, found.score) == ("nothing", None)
    assert "404" in found.note


def test_a_date_that_is_gone_is_no_unknown_key() -> None:
    found = served(there=False)
    assert found.source == "nothing"
    assert "no scores as of 1998-06-02, which generation 1 was made of" in found.note


def test_the_score_before_is_of_run_or_stream_and_stood_then() -> None:
    older = replace(BATCH, as_of=instant(JUNE_2 - MICROS))
    replaced = replace(older, kind="superseded", superseded_at=instant(JUNE_2 - MICROS // 2))
    assert before([older, replaced, BATCH, LIVE], LIVE, MORNING) == BATCH
    assert before([older, replaced, BATCH, LIVE], BATCH, MORNING) == older
    assert before([replace(older, scored_at=MORNING + HOUR)], BATCH, MORNING) is None
    assert before([BATCH], BATCH, MORNING) is None
    assert date(1998, 6, 2) == BATCH.date
