"""A small publisher for tests: what `jobs/publication` does with Spark, with arrays."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import redis

from serving.blocks import Tally, audit, pack_buckets, tally
from serving.head import Fallback, Head, Model
from serving.layout import Layout
from serving.store import Store

DAY = 86_400_000_000
JUNE_2 = 896_745_600_000_000  # 1998-06-02T00:00:00Z in microseconds

Scores = Mapping[str, float]


def arrays(layout: Layout, scores: Scores) -> tuple[Any, list[Any]]:
    """Return hashes (n,), ascending, and the one column of scores (n,)."""
    hashes = np.array([layout.hash_of(key) for key in scores], dtype=np.uint64)
    order = np.argsort(hashes)
    return hashes[order], [np.array(list(scores.values()), dtype=np.float32)[order]]


def head_for(pipeline: str, token: int, scores: Scores) -> Head:
    """Return the head of a generation of `scores` with a layout of about four keys a block."""
    layout = Layout.fitting(len(scores), 4, salt=token)
    return Head(
        pipeline=pipeline,
        token=token,
        as_of=JUNE_2,
        model=Model("propensity", "7", "sha256:0"),
        rows=len(scores),
        checksum=tally(*arrays(layout, scores)).checksum,
        layout=layout,
        events_version=3,
        run_id="run",
        published_at=JUNE_2 + DAY,
    )


def write(store: Store, head: Head, scores: Scores) -> None:
    """Write all blocks of a generation and read them back."""
    buckets = range(head.layout.buckets)
    blocks = pack_buckets(head.layout, head.token, buckets, *arrays(head.layout, scores))
    assert store.write_blocks(head.pipeline, head.token, blocks) == head.layout.buckets
    found = list(store.read_blocks(head.pipeline, head.token, buckets))
    assert audit(head.layout, head.token, found) == Tally(head.rows, head.checksum)


def publish(store: Store, pipeline: str, token: int, scores: Scores, fallback: float | None = None) -> Head:
    """Publish `scores` as the generation `token`, and return its head."""
    head = head_for(pipeline, token, scores)
    if fallback is not None:
        head = replace(head, fallback=Fallback("constant", fallback))
    assert store.claim(pipeline, token)
    write(store, head, scores)
    store.register(pipeline)
    assert store.swap(head) == "live"
    return head


@cache
def client_of(url: str) -> Any:
    return redis.Redis.from_url(url)


def raw(store: Store) -> Any:
    """Return redis-py's own client of the one server of a store, for what only a test does."""
    return client_of(store.url)
