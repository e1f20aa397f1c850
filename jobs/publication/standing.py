"""What stands when somebody is about to change the head: the record in Redis, and the history in the ledger."""

from contextlib import suppress
from dataclasses import dataclass, replace

from jobs.publication.ledger import History, Ledger
from jobs.spec import Pipeline
from serving.errors import HeadUnreadable
from serving.head import Head, Overlay, parse_head
from serving.store import Store


@dataclass(frozen=True)
class Standing:
    """The head record as it was observed, the head in it, and the history."""

    record: bytes | None
    live: Head | None
    history: History

    @classmethod
    def seen(cls, store: Store, ledger: Ledger, pipeline: str) -> "Standing":
        """Return what stands now; a head that cannot be read is none. Raises what a store raises."""
        record, live = store.record(pipeline), None
        with suppress(HeadUnreadable):
            live = parse_head(record) if record else None
        return cls(record, live, ledger.read())

    @classmethod
    def observed(cls, store: Store, ledger: Ledger, pipeline: str) -> "Standing":
        """Return what stands now, as `seen`; the history has the live head then, whatever became of its publisher."""
        found = cls.seen(store, ledger, pipeline)
        return replace(found, history=ledger.admit(found.live))

    @property
    def fault(self) -> HeadUnreadable | None:
        """Why the record is no head; None where it is one, or there is no record."""
        try:
            parse_head(self.record) if self.record is not None else None
        except HeadUnreadable as fault:
            return fault
        return None

    @property
    def before(self) -> Head | None:
        """What went live last: the live head, or what the ledger knows and Redis has lost; None at the first time."""
        heads = [head for head in (self.live, self.history.last) if head is not None]
        return max(heads, key=lambda head: head.order, default=None)

    @property
    def lost(self) -> Head | None:
        """What went live last and is not live any more: Redis was emptied, or a failover lost a swap."""
        return None if self.before == self.live else self.before

    def newer_than(self, as_of: int) -> Head | None:
        """Return a head whose as_of is after `as_of` (microseconds): what is live, or went live last; None for none."""
        heads = [head for head in (self.live, self.before) if head is not None]
        return next((head for head in heads if head.overtakes(as_of)), None)

    def placed(self, head: Head, pipeline: Pipeline) -> Head:
        """Return `head` with its epoch, and an overlay if its pipeline declares a stream.

        An epoch goes on with the same model, an as_of that is no older, and an overlay where there was one. The
        overlay's buckets stay within an epoch, whatever layout a generation has.
        """
        before = self.before
        fresher = pipeline.stream is not None
        same = before is not None and before.model == head.model and (before.overlay is not None) == fresher
        if before is not None and same and before.as_of <= head.as_of:
            return replace(head, epoch=before.epoch, overlay=before.overlay)
        return self.apart(head, pipeline)

    def apart(self, head: Head, pipeline: Pipeline) -> Head:
        """Return `head` at the beginning of an epoch of its own, as `placed` does where none goes on."""
        epoch = 1 if self.before is None else self.before.epoch + 1
        return replace(head, epoch=epoch, overlay=Overlay(head.layout.buckets) if pipeline.stream else None)
