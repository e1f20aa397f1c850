"""Small generations in a Redis and a ledger of a test's own, made without Spark."""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from jobs.publication.ledger import Entry, Ledger
from jobs.publication.retention import Retention
from jobs.spec import Pipeline
from serving.clock import Clock
from serving.head import Head
from serving.store import Store
from tests.serving.publishing import DAY, head_for, raw, write

NAME = "purchase_propensity"
SCORES = {f"k{number}": number / 100 for number in range(40)}


@dataclass(frozen=True)
class Site:
    """A pipeline, its Redis and its ledger, whose clock a test sets."""

    pipeline: Pipeline
    store: Store
    ledger: Ledger

    @property
    def retention(self) -> Retention:
        return Retention(self.pipeline, self.store, self.ledger)

    def after(self, seconds: float) -> "Site":
        """Return the site so much later."""
        return replace(self, ledger=replace(self.ledger, clock=Clock(timedelta(seconds=seconds))))

    def declaring(self, **publication: Any) -> "Site":
        """Return the site of a pipeline whose YAML says this of its publication."""
        changed = self.pipeline.publication.model_copy(update=publication)
        return replace(self, pipeline=self.pipeline.model_copy(update={"publication": changed}))

    def head(self, token: int) -> Head:
        """Return the head of the generation `token`: as of as many days after 2 June, in the epoch that is live."""
        live, head = self.store.head(NAME), head_for(NAME, token, SCORES)
        return replace(head, as_of=head.as_of + token * DAY, epoch=live.epoch if live else 1)

    def reserve(self, token: int) -> None:
        """Reserve a generation and write all of it."""
        head = self.head(token)
        assert self.ledger.reserve(Entry.of(head), above=0).token == token
        write(self.store, head, SCORES)

    def publish(self, token: int, **changes: Any) -> Head:
        """Let the generation `token` go live, and return its head."""
        head = replace(self.head(token), **changes)
        assert self.store.claim(NAME, token)
        write(self.store, head, SCORES)
        assert self.ledger.go_live(Entry.of(head), lambda: self.store.swap(head)) == "live"
        return head

    def there(self) -> list[int]:
        """Return the tokens of all blocks in Redis."""
        names = raw(self.store).scan_iter(match=f"scoreline:{{{NAME}:*}}:*", count=10_000)
        return sorted({int(name.rsplit(b":", 1)[1]) for name in names if b":overlay:" not in name})
