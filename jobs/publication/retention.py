"""What may be removed from Redis, and when: blocks, overlays and refusals that no reader can want any more."""

import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from jobs.publication.ledger import GRACE, OVERLAY_DROPPED, REMOVED, Entry, Generation, History, Ledger, Turn
from jobs.spec import Pipeline
from serving.errors import GenerationLive
from serving.head import Head
from serving.overlay import OverlayStore
from serving.refusals import RefusalStore
from serving.store import Store

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retention:
    """The garbage of one pipeline."""

    pipeline: Pipeline
    store: Store
    ledger: Ledger

    def free(self, history: History, claimed: int) -> None:
        """Unlink the blocks of generations that can never go live, since `claimed` has the claim.

        They are not on record as removed: whoever writes them may still be at work. `sweep` sees to that.
        """
        for one in history.generations:
            if one.token < claimed and not one.turns and not one.removed:
                self._unlink(one)

    def sweep(self, live: Head, before: Head | None) -> int:
        """Remove what is over now that `live` has taken the place of `before`; return how many generations."""
        refusals = RefusalStore(self.store, self.pipeline.name)
        told = refusals.dates()  # before the ledger is read, which hears of a refusal first
        history, now = self.ledger.read(), self.ledger.clock.now()
        refusals.clear(*told - history.refused.keys())
        protected = {head.token for head in (live, before) if head is not None}
        old = [one for one in self._over(history, now) if one.token not in protected and self._unlink(one)]
        self.ledger.write((REMOVED, _entry(one, live.run_id)) for one in old)
        self._sweep_overlays(history, live, now)
        self.ledger.compact()
        return len(old)

    def _unlink(self, one: Generation) -> bool:
        """Unlink a generation's blocks; return False for one that was brought back a moment ago."""
        with suppress(GenerationLive):
            self.store.remove_generation(self.pipeline.name, one.token, range(one.buckets))
            return True
        return False

    def _over(self, history: History, now: datetime) -> Iterator[Generation]:
        """Give the generations that are not of the last that were live, and nobody's work any more.

        One that never went live counts as abandoned when its task must have ended, by the pipeline's timeout.
        """
        known = [one for one in history.generations if not one.removed]
        lived = sorted((one for one in known if one.turns), key=lambda one: one.turns[-1].order)
        older = max(0, len(lived) - self.pipeline.publication.keep)
        for one, later in pairwise(lived[: older + 1]):
            if later.turns[-1].at <= now - GRACE:
                yield one
        timeout = timedelta(minutes=self.pipeline.schedule.timeout_minutes)
        yield from (one for one in known if not one.turns and one.reserved_at < now - timeout)

    def _sweep_overlays(self, history: History, live: Head, now: datetime) -> None:
        overlay, turns = OverlayStore(self.store), history.turns
        replaced = _replaced(turns, live)
        if replaced and replaced.head and replaced.at <= now - GRACE:
            LOG.info("%d entries of the overlay were overtaken", overlay.drop_overtaken(replaced.head))
        for last in _epochs_over(turns, now):
            if last.overlay and last.epoch not in {head.epoch for head in history.dropped}:
                overlay.drop_epoch(self.pipeline.name, last.epoch, last.overlay)
                self.ledger.write([(OVERLAY_DROPPED, Entry.of(last))])


def _replaced(turns: list[Turn], live: Head) -> Turn | None:
    """Return the turn before that of `live`: nobody holds a head that is older than it, once it is beyond the grace."""
    return next((turn for turn in reversed(turns) if turn.order < live.order), None)


def _epochs_over(turns: list[Turn], now: datetime) -> Iterator[Head]:
    """Give the last head of each epoch that was followed by another one so long ago that no reader can be in it."""
    for last, following in pairwise(turns):
        if last.head and last.order[0] < following.order[0] and following.at <= now - GRACE:
            yield last.head


def _entry(one: Generation, run_id: str) -> Entry:
    return Entry(as_of=one.as_of, run_id=run_id, token=one.token, buckets=one.buckets)
