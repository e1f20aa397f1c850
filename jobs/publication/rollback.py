"""Rollback: the head of a generation that was live before, once more, in an epoch of its own; without Spark."""

from contextlib import suppress
from dataclasses import dataclass, replace

from jobs.errors import RollbackRefused
from jobs.publication.ledger import Entry, History, Ledger
from jobs.publication.standing import Standing
from jobs.spec import Pipeline
from serving.clock import instant, microseconds
from serving.errors import ServingError
from serving.head import Head
from serving.refusals import Refusal, RefusalStore
from serving.store import Outcome, Store


@dataclass(frozen=True)
class Wish:
    """Which generation is to be live, None for the one that was live before; why, and who asks."""

    to: int | None = None
    reason: str = ""
    run_id: str = "manual"


def roll_back(pipeline: Pipeline, store: Store, ledger: Ledger, wish: Wish) -> Head:
    """Let a generation that was live before be live again, and return its head.

    Where one was cut off after its swap, that one is brought to its end and goes no further: it may be run again.

    Raises:
        RollbackRefused: there is no such generation or no ledger, not all of its blocks are there, or the head moved
            meanwhile.
        ServingError: Redis is away or refuses.
    """
    standing, live = _standing(pipeline.name, store, ledger)
    before, head = _left_by_one_cut_off(standing, wish), live
    if before is None:
        before, standing = live, replace(standing, history=ledger.admit(live))
        target = _target(pipeline.name, standing.history, before, wish.to)
        _require_whole(store, target)
        head = standing.apart(target, pipeline)
    note = f"rollback from generation {before.token}" + (f": {wish.reason}" if wish.reason else "")
    entry = replace(Entry.of(head, note), run_id=wish.run_id)

    def swap() -> Outcome:
        # On record only when it is whole: one that is cut off before is known by that, and ended by the next.
        swapped = store.replace(standing.record, head)
        if swapped == "live":
            _stand_by(store, ledger, before, head)
        return swapped

    outcome = ledger.go_live(entry, swap)
    if outcome == "removed":
        raise RollbackRefused(f"{pipeline.name}: generation {head.token} is just being removed: go back to another one")
    if outcome != "live":
        raise RollbackRefused(f"{pipeline.name}: another head went live at this moment; look, and roll back again")
    with suppress(ServingError):  # it is live and on record: who sees a fault would go back once more
        _tell(RefusalStore(store, pipeline.name), ledger, before, Entry.of(head, note))
    return head


def _standing(pipeline: str, store: Store, ledger: Ledger) -> tuple[Standing, Head]:
    """Return what stands, and the head that is live."""
    standing = Standing.seen(store, ledger, pipeline)
    if standing.live is None:
        raise RollbackRefused(f"{pipeline}: nothing is live to go back from: run `scoreline republish {pipeline}`")
    if not ledger.is_there:
        raise RollbackRefused(
            f"{pipeline}: the lake has no {ledger.name}, which says what was live before: correct SCORELINE_LAKE, "
            f"or publish the date that is wanted, `scoreline publish {pipeline} --day D --publish force --reason WHY`"
        )
    return standing, standing.live


def _left_by_one_cut_off(standing: Standing, wish: Wish) -> Head | None:
    """Return what was live before a rollback that has swapped the head and has not put that on record; else None.

    Only a rollback lets a generation go live a second time.
    """
    history, live, last = standing.history, standing.live, standing.history.last
    if live is None or last is None or history.has(live) or wish.to not in (None, live.token):
        return None
    return last if live.token in {turn.token for turn in history.turns} - {last.token} else None


def _target(pipeline: str, history: History, live: Head, to: int | None) -> Head:
    """Return the head to bring back: of the generation `to`, else of the one before the live one's first turn."""
    there = {one.token for one in history.generations if not one.removed} - {live.token}
    turns = [(turn, turn.head) for turn in history.turns if turn.head and turn.token in there]
    first = min((turn.order for turn in history.turns if turn.token == live.token), default=live.order)
    wanted = [head for turn, head in turns if (turn.order < first if to is None else turn.token == to)]
    if wanted:
        return wanted[-1]
    known = ", ".join(str(token) for token in sorted({turn.token for turn, _ in turns})) or "none"
    which = "one before it" if to is None else f"generation {to}"
    raise RollbackRefused(
        f"{pipeline}: generation {live.token} is live, and there is no going back to {which}: it must have been live "
        f"and not be removed since; such are: {known}"
    )


def _require_whole(store: Store, target: Head) -> None:
    buckets = target.layout.buckets
    there = store.count_blocks(target.pipeline, target.token, range(buckets))
    if there < buckets:
        raise RollbackRefused(
            f"{target.pipeline}: generation {target.token} lacks {buckets - there} of its {buckets} blocks in Redis: "
            f"go back to another one (`scoreline generations {target.pipeline}`), "
            "or publish its date with `--publish force`"
        )


def _stand_by(store: Store, ledger: Ledger, before: Head, head: Head) -> None:
    """Undo a rollback to a generation that was removed in the very moment in which it went live."""
    try:
        _require_whole(store, head)
    except RollbackRefused:
        restored = replace(before, epoch=head.epoch + 1)
        entry = Entry.of(restored, "rollback undone: its blocks were being removed")
        ledger.go_live(entry, lambda: store.replace(head.to_json(), restored))
        raise


def _tell(refusals: RefusalStore, ledger: Ledger, before: Head, entry: Entry) -> None:
    """Say beside the head why the date that was live is not any more, where it is the newer one."""
    now, as_of = microseconds(ledger.clock.now()), microseconds(entry.as_of)
    if before.overtakes(as_of):
        refusals.put(instant(before.as_of).date(), Refusal("rolled back", entry.note, now))
    refusals.clear(entry.as_of.date())
