"""The asynchronous side of the Redis contract, for the service: resolves a head, reads that generation alone."""

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from redis.exceptions import ResponseError

from serving.connection import lookup_connection, redis_faults
from serving.errors import HeadUnreadable, KeyRefused, TooManyKeys, TornGeneration, UnknownPipeline
from serving.head import Head, parse_head
from serving.keys import PIPELINE_NAME, PIPELINES, block_key, head_key
from serving.layout import Value
from serving.sparing import SparingLog

Row = tuple[Value, ...]
Found = Row | KeyRefused | None

LOG = SparingLog(logging.getLogger(__name__))


@dataclass(frozen=True)
class Live:
    """The heads of all pipelines that have a live generation, by name; and how many others have an unreadable one."""

    heads: list[Head]
    unreadable: int = 0


class Reader:
    """One Redis, reached at first use and again after a fault; methods raise `StoreUnavailable`, `StoreRefused`."""

    def __init__(self, redis_url: str) -> None:
        self.url = redis_url
        self._redis = lookup_connection(redis_url)

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def ping(self) -> None:
        """Return when Redis answers."""
        with redis_faults(self.url):
            await self._redis.ping()

    async def head(self, pipeline: str) -> Head:
        """Return the head of the live generation, or raise `UnknownPipeline` or `HeadUnreadable`."""
        if not re.fullmatch(PIPELINE_NAME, pipeline):
            raise UnknownPipeline(f"{pipeline[:128]!r} is no name of a pipeline: see /v1/pipelines")
        with redis_faults(self.url):
            raw = cast("bytes | None", await self._redis.get(head_key(pipeline)))
        if raw is None:
            raise UnknownPipeline(f"no generation of pipeline {pipeline} is live: see /v1/pipelines, or publish one")
        return parse_head(raw)

    async def heads(self) -> Live:
        """Return all heads; one that cannot be read is logged and counted, and hides no other."""
        with redis_faults(self.url):
            names = cast("set[bytes]", await self._redis.smembers(PIPELINES))
            async with self._redis.pipeline(transaction=False) as pipe:
                for name in sorted(names):
                    pipe.get(head_key(name.decode(errors="replace")))
                records = await pipe.execute(raise_on_error=False)
        pairs = zip(sorted(names), records, strict=True)
        parsed = [_parsed(name, record) for name, record in pairs if record is not None]
        heads = [head for head in parsed if head is not None]
        return Live(heads, len(parsed) - len(heads))

    async def lookup(self, pipeline: str, keys: Sequence[str]) -> tuple[Head, list[Found]]:
        """Return the live head, and for each key its values in that generation, or None, or why it is refused.

        A generation may go between the reading of its head and that of its blocks: the head is then resolved once
        more, and only a second gap raises `TornGeneration`. Raises `UnknownPipeline`, `HeadUnreadable` and
        `BlockCorrupt`, and `TooManyKeys` by the limits in the head.
        """
        try:
            return await self._lookup(pipeline, keys)
        except TornGeneration:
            return await self._lookup(pipeline, keys)

    async def _lookup(self, pipeline: str, keys: Sequence[str]) -> tuple[Head, list[Found]]:
        head = await self.head(pipeline)
        if len(keys) > head.limits.batch:
            raise TooManyKeys(f"{len(keys)} keys in one request: {head.limits.batch} is the most; split them")
        layout = head.layout
        found: dict[str, Found] = {key: _refusal(head, key) for key in keys}
        hashes = {key: layout.hash_of(key) for key, refused in found.items() if refused is None}
        blocks = await self._blocks(head, [layout.bucket_of(hashed) for hashed in hashes.values()])
        for key, hashed in hashes.items():
            found[key] = layout.find(blocks[layout.bucket_of(hashed)], head.token, hashed)
        return head, [found[key] for key in keys]

    async def _blocks(self, head: Head, buckets: Iterable[int]) -> dict[int, bytes]:
        """Return each distinct bucket's block of the generation of `head`."""
        blocks = {}
        distinct = list(dict.fromkeys(buckets))
        found = await self._get([block_key(head.pipeline, head.token, bucket) for bucket in distinct])
        for bucket, block in zip(distinct, found, strict=True):
            if block is None:
                raise TornGeneration(
                    f"{head.pipeline}: generation {head.token} lacks bucket {bucket}: publish it again"
                )
            blocks[bucket] = block
        return blocks

    async def _get(self, names: list[str]) -> list[bytes | None]:
        if not names:
            return []
        with redis_faults(self.url):
            return cast("list[bytes | None]", await self._redis.mget(names))


def _parsed(name: bytes, record: bytes | ResponseError) -> Head | None:
    try:
        return _head_of(record)
    except HeadUnreadable as fault:
        LOG.tell(f"HeadUnreadable of pipeline {name.decode(errors='replace')}", fault)
        return None


def _head_of(record: bytes | ResponseError) -> Head:
    if isinstance(record, ResponseError):
        raise HeadUnreadable(f"a head that is no record ({record}): publish again") from record
    return parse_head(record)


def _refusal(head: Head, key: str) -> KeyRefused | None:
    size = len(key.encode())
    if 1 <= size <= head.limits.key_bytes:
        return None
    return KeyRefused(f"a key of {size} bytes: send one of 1 to {head.limits.key_bytes} bytes in UTF-8")
