"""The reader: one generation an answer, whatever writers do; gone and back with Redis."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import TypeVar

import pytest
import redis

from serving.errors import (
    BlockCorrupt,
    HeadLost,
    KeyRefused,
    StoreRefused,
    StoreUnavailable,
    TooManyKeys,
    TornGeneration,
    UnknownPipeline,
)
from serving.head import Overlay
from serving.keys import block_key, overlay_key
from serving.question import Found, Question
from serving.reader import ROUND_KEYS, Reader
from serving.store import Store
from serving.wire.link import ServerLink
from serving.wire.route import Command, Reply
from serving.wire.target import target_of
from tests.conftest import free_port, redis_at, stop
from tests.serving.publishing import head_for, publish, write

T = TypeVar("T")

KEYS = [f"k{number}" for number in range(200)]
SWAPS = 60


def read(url: str, work: Callable[[Reader], Awaitable[T]]) -> T:
    async def session() -> T:
        reader = Reader.at(url)
        try:
            return await work(reader)
        finally:
            await reader.close()

    return asyncio.run(session())


def test_rows_come_in_the_order_of_the_keys(store: Store, redis_url: str) -> None:
    head = publish(store, "rows", 1, {"a": 0.25, "b": 0.5, "c": 1.0})
    found = read(redis_url, lambda reader: reader.lookup("rows", ["c", "?", "a", "c"]))
    assert found == (head, [(1.0,), None, (0.25,), (1.0,)])


def test_an_empty_generation_knows_no_key(store: Store, redis_url: str) -> None:
    publish(store, "empty", 1, {})
    assert read(redis_url, lambda reader: reader.lookup("empty", ["a"]))[1] == [None]


def test_no_lookup_mixes_generations_while_they_are_swapped_and_removed(any_store: Store) -> None:
    """On a cluster the head and the blocks of one round trip are read of several servers, in any order."""
    publish(any_store, "swaps", 1, dict.fromkeys(KEYS, 1.0))
    publisher = Thread(target=swap_and_remove, args=(any_store,))

    async def watch(reader: Reader) -> list[int]:
        publisher.start()
        seen: list[int] = []
        while publisher.is_alive() or len(seen) < SWAPS:
            head, rows = await reader.lookup("swaps", KEYS)
            assert set(rows) == {(float(head.token),)}
            seen.append(head.token)
        return seen

    seen = read(any_store.url, watch)
    assert seen == sorted(seen)
    assert len(set(seen)) > SWAPS // 4


def swap_and_remove(store: Store) -> None:
    for token in range(2, SWAPS):
        last = publish(store, "swaps", token, dict.fromkeys(KEYS, float(token)))
        store.remove_generation("swaps", token - 2, range(last.layout.buckets))


def test_a_missing_block_is_torn_once_the_head_says_so_again(store: Store, redis_url: str) -> None:
    publish(store, "torn", 1, {"a": 0.5})
    with redis.Redis.from_url(redis_url) as raw:
        raw.delete(block_key("torn", 1, 0))
    _, (fault,) = read(redis_url, lambda reader: reader.lookup("torn", ["a"]))
    assert isinstance(fault, TornGeneration)
    assert str(fault) == "torn: generation 1 lacks bucket 0: `scoreline verify --repair` mends it"


def test_a_fault_is_told_of_the_keys_that_it_is_about(any_store: Store) -> None:
    """Each stands in place of what is known of its key, whatever server of a cluster it comes from."""
    head = replace(head_for("faults", 1, dict.fromkeys(KEYS, 0.5)), overlay=Overlay(20))
    assert head.overlay
    write(any_store, head, dict.fromkeys(KEYS, 0.5))
    assert any_store.replace(None, head) == "live"
    buckets = {key: head.layout.bucket_of(head.layout.hash_of(key)) for key in KEYS}
    spread = {key: head.overlay.spread.bucket_of(head.overlay.spread.hash_of(key)) for key in KEYS}
    torn, corrupt, fresher, typed = "k0", "k1", "k2", "k3"
    any_store.unlink([block_key("faults", 1, buckets[torn])])
    any_store.write_blocks("faults", 1, [(buckets[corrupt], b"junk")])
    any_store.ask("HSET", overlay_key("faults", 1, spread[fresher]), fresher, b"junk")
    any_store.ask("SET", overlay_key("faults", 1, spread[typed]), b"no hash")
    _, found = read(any_store.url, lambda reader: reader.lookup("faults", KEYS))
    expected = {
        key: StoreRefused
        if spread[key] == spread[typed]
        else TornGeneration
        if buckets[key] == buckets[torn]
        else BlockCorrupt
        if buckets[key] == buckets[corrupt] or key == fresher
        else tuple
        for key in KEYS
    }
    assert set(expected.values()) == {StoreRefused, TornGeneration, BlockCorrupt, tuple}
    assert {key: type(known) for key, known in zip(KEYS, found, strict=True)} == expected


class Overtaken(ServerLink):
    """Before the first blocks are read something happens."""

    def __init__(self, redis_url: str, before: Callable[[], object]) -> None:
        super().__init__(*target_of(redis_url).places)
        self.url = redis_url
        self.before = before
        self.asked: list[str] = []  # the first block of each round trip

    async def ask(self, commands: Sequence[Command]) -> list[Reply]:
        blocks = [str(command[1]) for command in commands if command[0] == "MGET"]
        if blocks and not self.asked:
            await asyncio.to_thread(self.before)
        self.asked += blocks
        return await super().ask(commands)


def look_up(link: Overtaken, pipeline: str) -> tuple[int, list[Found]]:
    async def session() -> tuple[int, list[Found]]:
        reader = Reader(link, link.url)
        try:
            head, rows = await reader.lookup(pipeline, ["a"])
        finally:
            await reader.close()
        return head.token, rows

    return asyncio.run(session())


def test_a_generation_that_goes_in_between_is_answered_from_the_next(store: Store, redis_url: str) -> None:
    first = publish(store, "overtaken", 1, {"a": 0.5})

    def publish_next() -> None:
        publish(store, "overtaken", 2, {"a": 0.75})
        store.remove_generation("overtaken", 1, range(first.layout.buckets))

    assert look_up(Overtaken(redis_url, publish_next), "overtaken") == (2, [(0.75,)])


def test_lookups_of_one_tick_share_a_round_trip_unless_they_have_many_keys(store: Store, redis_url: str) -> None:
    publish(store, "shared", 1, {"a": 0.5})

    async def trips(lookups: int, keys: int) -> int:
        link = Overtaken(redis_url, lambda: None)
        reader = Reader(link, link.url)
        answers: asyncio.Queue[object] = asyncio.Queue()
        try:
            plan = await reader.heads.resolve("shared")
            for _ in range(lookups):
                reader.ask(Question(plan, [f"k{n}" for n in range(keys)], lambda _, found: answers.put_nowait(found)))
            for _ in range(lookups):
                await answers.get()
        finally:
            await reader.close()
        return len(link.asked)

    many = ROUND_KEYS // 2 + 1
    assert [asyncio.run(trips(30, 1)), asyncio.run(trips(4, many)), asyncio.run(trips(1, 2 * many))] == [1, 2, 1]


class Late(ServerLink):
    """The first replies that hold a head stay on their way until they are let go, as behind a cluster's slow server."""

    def __init__(self, redis_url: str) -> None:
        super().__init__(*target_of(redis_url).places)
        self.held, self.go_on = asyncio.Event(), asyncio.Event()

    async def ask(self, commands: Sequence[Command]) -> list[Reply]:
        replies = await super().ask(commands)
        if len(commands) > 1 and not self.held.is_set():
            self.held.set()
            await self.go_on.wait()
        return replies


async def asked_by_lookup(reader: Reader, pipeline: str) -> list[int]:
    head, rows = await reader.lookup(pipeline, ["a"])
    assert rows == [(head.token / 4,)]
    return [head.token]


async def asked_by_scrape(reader: Reader, pipeline: str) -> list[int]:
    return [head.token for head in (await reader.live()).heads if head.pipeline == pipeline]


@pytest.mark.parametrize("ask", [asked_by_lookup, asked_by_scrape])
def test_a_head_that_was_read_earlier_and_comes_later_is_no_head_brought_back(
    store: Store, redis_url: str, ask: Callable[[Reader, str], Awaitable[list[int]]]
) -> None:
    pipeline = ask.__name__
    publish(store, pipeline, 1, {"a": 0.25})

    async def session() -> None:
        link = Late(redis_url)
        reader = Reader(link, redis_url)
        slow = asyncio.ensure_future(ask(reader, pipeline))
        await link.held.wait()
        await asyncio.to_thread(publish, store, pipeline, 2, {"a": 0.5})
        assert await asked_by_lookup(reader, pipeline) == [2]
        link.go_on.set()
        assert await slow == [1], "it was live when the blocks were read"
        assert reader.heads.regressions == 0
        assert reader.heads.plans[pipeline].head.token == 2
        assert await asked_by_lookup(reader, pipeline) == [2]
        await reader.close()

    asyncio.run(session())


def test_a_generation_that_is_there_still_is_not_answered_from_once_another_is_live(
    store: Store, redis_url: str
) -> None:
    publish(store, "swapped", 1, {"a": 0.5})
    link = Overtaken(redis_url, lambda: publish(store, "swapped", 2, {"a": 0.75}))
    assert look_up(link, "swapped") == (2, [(0.75,)])


def test_a_block_that_was_missing_for_a_moment_is_read_again(store: Store, redis_url: str) -> None:
    """A head that comes back, as by a rollback, may name a generation whose blocks another reader missed."""
    publish(store, "moment", 1, {"a": 0.5})
    with redis.Redis.from_url(redis_url) as raw:
        raw.rename(block_key("moment", 1, 0), "moment")

        class Returning(Overtaken):
            async def ask(self, commands: Sequence[Command]) -> list[Reply]:
                if self.asked:
                    await asyncio.to_thread(raw.rename, "moment", block_key("moment", 1, 0))
                return await super().ask(commands)

        assert look_up(Returning(redis_url, lambda: None), "moment") == (1, [(0.5,)])


def test_a_generation_that_stays_torn_is_read_twice_and_no_more(store: Store, redis_url: str) -> None:
    publish(store, "gone", 1, {"a": 0.5})
    with redis.Redis.from_url(redis_url) as raw:
        raw.delete(block_key("gone", 1, 0))
    link = Overtaken(redis_url, lambda: None)
    _, (fault,) = look_up(link, "gone")
    assert isinstance(fault, TornGeneration)
    assert link.asked == [block_key("gone", 1, 0)] * 2


def test_a_key_of_a_refused_size_is_refused_before_anything_is_read(store: Store, redis_url: str) -> None:
    publish(store, "sizes", 1, {"a": 0.5})
    with redis.Redis.from_url(redis_url) as raw:
        raw.delete(block_key("sizes", 1, 0))
    _, found = read(redis_url, lambda reader: reader.lookup("sizes", ["", "x" * 257, "é" * 129]))
    assert [str(refused).partition(":")[0] for refused in found] == [
        "a key of 0 bytes",
        "a key of 257 bytes",
        "a key of 258 bytes",
    ]
    assert all(isinstance(refused, KeyRefused) for refused in found)


@pytest.mark.parametrize("name", ["never-published", "a:b", "a{b}", "", "x" * 500])
def test_an_unknown_pipeline_is_refused(redis_url: str, name: str) -> None:
    with pytest.raises(UnknownPipeline, match="/v1/pipelines"):
        read(redis_url, lambda reader: reader.lookup(name, ["a"]))


def test_more_keys_than_the_limit_are_refused(store: Store, redis_url: str) -> None:
    publish(store, "limit", 1, {"a": 0.5})
    assert len(read(redis_url, lambda reader: reader.lookup("limit", ["a"] * 1000))[1]) == 1000
    with pytest.raises(TooManyKeys, match="1000 is the most"):
        read(redis_url, lambda reader: reader.lookup("limit", ["a"] * 1001))


def test_heads_are_those_of_registered_pipelines_with_something_live(store: Store, redis_url: str) -> None:
    store.register("registered-only")
    one, other = publish(store, "heads-b", 1, {"a": 0.5}), publish(store, "heads-a", 9, {})
    live = read(redis_url, Reader.live)
    heads = [head for head in live.heads if head.pipeline.startswith(("heads", "registered"))]
    assert heads == [other, one]


def test_a_reader_outlives_a_redis_that_stops_and_comes_back_empty(servers: ExitStack, tmp_path: Path) -> None:
    port = free_port()
    url = f"redis://reader:secret@127.0.0.1:{port}/0"
    user = ("--user", *["reader", "on", ">secret", "~*", "+@all"])
    first = servers.enter_context(redis_at(port, tmp_path, *user))

    async def outlive(reader: Reader) -> None:
        with Store(url) as store:
            head = await asyncio.to_thread(publish, store, "outlived", 1, {"a": 0.5})
            assert await reader.lookup("outlived", ["a"]) == (head, [(0.5,)])
            stop(first)
            with pytest.raises(StoreUnavailable, match=rf"^(?!.*secret).*127\.0\.0\.1:{port}"):
                await reader.lookup("outlived", ["a"])
            servers.enter_context(redis_at(port, tmp_path, *user))
            with pytest.raises(HeadLost, match="outlived: `scoreline republish`"):
                await reader.lookup("outlived", ["a"])
            await asyncio.to_thread(publish, store, "outlived", 2, {"a": 0.75})
            assert (await reader.lookup("outlived", ["a"]))[1] == [(0.75,)]

    read(url, outlive)
