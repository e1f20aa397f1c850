"""Publishers, zombies, rollbacks, fresher values and an emptied Redis, in any order, against a plain dict model."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import count
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from serving.answers import Score
from serving.client import Client
from serving.clock import microseconds
from serving.errors import ServiceError
from serving.head import Head, Overlay
from serving.keys import block_key, claim_key, head_key, overlay_key
from serving.overlay import EntryCodec, Fresh, OverlayStore
from serving.store import Store
from tests.serving.conftest import service_at
from tests.serving.publishing import JUNE_2, Scores, head_for, write
from tests.serving.test_sources import regressions

KEYS = ["a", "b", "c", "d"]
SCORES = st.dictionaries(st.sampled_from(KEYS), st.sampled_from([0.25, 0.5, 0.75]), min_size=1)
OVERLAY = Overlay(2)
NUMBER = count()


@dataclass
class Generation:
    """A publication as the model knows it."""

    head: Head
    scores: Scores


@dataclass
class Model:
    """What must be true: the live generation, who may go live next, and the fresher values of each epoch."""

    live: Generation | None = None
    claim: int = 0
    overlay: dict[int, dict[str, tuple[int, float]]] = field(default_factory=dict)

    def answer(self, key: str) -> tuple[int, float] | None:
        """Return as_of and score of a key: the newer of generation and overlay."""
        if self.live is None:
            return None
        head = self.live.head
        block = (head.as_of, self.live.scores[key]) if key in self.live.scores else None
        fresh = self.overlay.get(head.epoch, {}).get(key)
        return fresh if fresh and fresh[0] > head.as_of else block


def answer(store: Store, pipeline: str, key: str) -> tuple[int, float] | None:
    """Return as_of and score of a key as a reader of Redis finds them."""
    head = store.head(pipeline)
    if head is None:
        return None
    hashed, spread = head.layout.hash_of(key), OVERLAY.spread
    name = overlay_key(pipeline, head.epoch, spread.bucket_of(spread.hash_of(key)))
    entry = store.ask("HGET", name, key)
    if isinstance(entry, bytes):
        as_of, (fresh,) = EntryCodec(head.layout).unpack(entry)
        if as_of > head.as_of:
            return as_of, float(fresh)
    ((_, block),) = store.read_blocks(pipeline, head.token, [head.layout.bucket_of(hashed)])
    found = head.layout.finder(head.token)(block, hashed)
    return None if found is None else (head.as_of, float(found[0]))


def told(client: Client, pipeline: str) -> dict[str, tuple[int, float] | None]:
    """Return as_of and score of each key as the service tells them."""
    try:
        answers = list(client.scores(pipeline, KEYS))
    except ServiceError as refused:
        if refused.code not in ("unknown-pipeline", "lost-head"):
            raise
        return dict.fromkeys(KEYS)
    assert all(isinstance(each, Score) or each.problem.type.endswith("unknown-key") for each in answers), answers
    return {each.key: (microseconds(each.as_of), each.score) if isinstance(each, Score) else None for each in answers}


class Publications(RuleBasedStateMachine):
    """The state machine; `store` is a real Redis, and `client` is of a service that reads it."""

    store: ClassVar[Store]
    client: ClassVar[Client]
    brought_back: ClassVar[list[str]]  # the pipelines of which the service must have noticed an earlier head
    begun = Bundle("begun")  # publishers who wrote everything and have not swapped yet: any of them may be a zombie

    @initialize()
    def begin(self) -> None:
        self.pipeline, self.tokens, self.model = f"model-{next(NUMBER)}", count(1), Model()
        self.history: list[Generation] = []
        self.newest = (0, 0, 0)  # the order of the head that was seen last

    @rule(target=begun, scores=SCORES, days=st.integers(-1, 2))
    def start(self, scores: Scores, days: int) -> Generation:
        """A publisher claims, observes and writes all blocks; `days` after what is live."""
        token = next(self.tokens)
        assert self.store.claim(self.pipeline, token)
        self.model.claim = token
        live = self.store.head(self.pipeline)
        as_of, epoch = (live.as_of + days, live.epoch) if live else (JUNE_2, 1)
        head = replace(head_for(self.pipeline, token, scores), as_of=as_of, epoch=epoch, overlay=OVERLAY)
        write(self.store, head, scores)
        return Generation(head, scores)

    @rule(scores=SCORES)
    def crash(self, scores: Scores) -> None:
        """A publisher dies in the middle of its blocks."""
        token = next(self.tokens)
        assert self.store.claim(self.pipeline, token)
        self.model.claim = token
        self.store.write_blocks(self.pipeline, token, [(0, b"half")])

    @precondition(lambda self: self.model.claim > 1)
    @rule()
    def claim_too_late(self) -> None:
        """A publisher whose token was reserved earlier than that of another who has begun."""
        assert not self.store.claim(self.pipeline, self.model.claim - 1)

    @rule(publisher=begun)
    def swap(self, publisher: Generation) -> None:
        """Whoever wrote its blocks swaps, be it hours later."""
        head, live = publisher.head, self.model.live
        expected = "live"
        if live and live.head == head:
            pass  # sent again
        elif self.model.claim != head.token:
            expected = "unclaimed"
        elif live and (head.as_of, head.token) <= (live.head.as_of, live.head.token):
            expected = "older"
        elif live and head.epoch < live.head.epoch:
            expected = "epoch"
        assert self.store.swap(head) == expected
        if expected == "live":
            self.model.live = publisher
            self.history.append(publisher)

    @precondition(lambda self: self.model.live and self.history)
    @rule(back=st.integers(1, 3))
    def roll_back(self, back: int) -> None:
        """An operator makes an earlier generation live again."""
        assert self.model.live
        observed = self.store.record(self.pipeline)
        past = self.history[max(0, len(self.history) - 1 - back)]
        again = replace(past.head, epoch=self.model.live.head.epoch + 1)
        assert self.store.replace(b"what was live long ago", again) == "moved"
        assert self.store.replace(observed, again) == "live"
        self.model.live = Generation(again, past.scores)

    @precondition(lambda self: self.model.live)
    @rule(key=st.sampled_from(KEYS), later=st.integers(-2, 3), score=st.sampled_from([1.0, 2.0]))
    def freshen(self, key: str, later: int, score: float) -> None:
        """A micro-batch writes a value, newer or older than what is known."""
        assert self.model.live
        head = self.model.live.head
        as_of, known = head.as_of + later, self.model.overlay.setdefault(head.epoch, {})
        newer = key not in known or known[key][0] < as_of
        assert OverlayStore(self.store).write(head, [Fresh(key, as_of, (score,))]) == int(newer)
        if newer:
            known[key] = (as_of, score)

    @precondition(lambda self: self.model.live)
    @rule()
    def sweep(self) -> None:
        """What the generation has overtaken goes, and nobody can tell."""
        assert self.model.live
        head = self.model.live.head
        known = self.model.overlay.get(head.epoch, {})
        overtaken = {key for key, (as_of, _) in known.items() if as_of <= head.as_of}
        assert OverlayStore(self.store).drop_overtaken(head) == len(overtaken)
        for key in overtaken:
            del known[key]

    @rule(lost=st.sampled_from([False, False, True]))
    def erase(self, *, lost: bool) -> None:
        """Redis loses everything of the pipeline, the claim too."""
        if not lost:
            return  # else most runs would be short
        self.store.unlink(self._names())
        self.model = Model()
        self.history = []

    @invariant()
    def every_answer_is_the_newest_of_what_went_live(self) -> None:
        expected = {key: self.model.answer(key) for key in KEYS}
        assert {key: answer(self.store, self.pipeline, key) for key in KEYS} == expected
        assert told(self.client, self.pipeline) == expected
        if self.model.live:
            if self.model.live.head.order < self.newest:  # which takes a Redis that was emptied
                self.brought_back.append(self.pipeline)
            self.newest = self.model.live.head.order

    def teardown(self) -> None:
        self.store.unlink(self._names())

    def _names(self) -> Iterator[str]:
        """Yield every name that this machine may have written."""
        yield from (head_key(self.pipeline), claim_key(self.pipeline))
        epochs = 1 + max([*self.model.overlay, self.model.live.head.epoch if self.model.live else 1])
        for bucket in range(OVERLAY.buckets):
            yield from (overlay_key(self.pipeline, epoch, bucket) for epoch in range(epochs + 1))
            yield from (block_key(self.pipeline, token, bucket) for token in range(self.model.claim + 1))


@pytest.mark.parametrize("examples", [80, pytest.param(1000, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])])
def test_any_order_of_events_ends_as_the_model_says(
    servers: ExitStack, any_place: Callable[[str], str], any_store: Store, examples: int
) -> None:
    share = 2 if any_store.connection.sharded else 1  # a step costs three times as much there
    quick = settings(
        max_examples=examples // share,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    url = servers.enter_context(service_at(any_place("reader")))
    brought_back = list[str]()
    shared = {"store": any_store, "client": servers.enter_context(Client(url)), "brought_back": brought_back}
    run_state_machine_as_test(type("OnRedis", (Publications,), shared), settings=quick)
    assert regressions(url) == len(brought_back)
