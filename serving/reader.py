"""The asynchronous side of the Redis contract, for the service: resolves a head, reads that generation alone."""

import re
from collections.abc import Sequence
from typing import cast

from serving.connection import lookup_connection, redis_faults
from serving.errors import TooManyKeys, TornGeneration, UnknownPipeline
from serving.head import Head, parse_head
from serving.keys import PIPELINE_NAME, PIPELINES, block_key, head_key
from serving.layout import Value

Row = tuple[Value, ...]


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
        """Return the head of the live generation, or raise `UnknownPipeline`."""
        if not re.fullmatch(PIPELINE_NAME, pipeline):
            raise UnknownPipeline(f"{pipeline[:128]!r} is no name of a pipeline: see /v1/pipelines")
        raw = (await self._get([head_key(pipeline)]))[0]
        if raw is None:
            raise UnknownPipeline(f"no generation of pipeline {pipeline} is live: see /v1/pipelines, or publish one")
        return parse_head(raw)

    async def heads(self) -> list[Head]:
        """Return the heads of all pipelines that have a live generation, by name."""
        with redis_faults(self.url):
            names = cast("set[bytes]", await self._redis.smembers(PIPELINES))
        raws = await self._get([head_key(name.decode()) for name in sorted(names)])
        return [parse_head(raw) for raw in raws if raw is not None]

    async def lookup(self, pipeline: str, keys: Sequence[str]) -> tuple[Head, list[Row | None]]:
        """Return the live head, and for each key its values in that generation or None.

        A generation may go between the reading of its head and that of its blocks: the head is then resolved once
        more, and only a second gap raises `TornGeneration`. Raises `TooManyKeys` by the limits in the head.
        """
        try:
            return await self._lookup(pipeline, keys)
        except TornGeneration:
            return await self._lookup(pipeline, keys)

    async def _lookup(self, pipeline: str, keys: Sequence[str]) -> tuple[Head, list[Row | None]]:
        head = await self.head(pipeline)
        if len(keys) > head.limits.batch:
            raise TooManyKeys(f"{len(keys)} keys in one request: {head.limits.batch} is the most; split them")
        hashes = [head.layout.hash_of(key) for key in keys]
        buckets = [head.layout.bucket_of(hashed) for hashed in hashes]
        blocks = await self._blocks(head, buckets)
        found = zip(hashes, buckets, strict=True)
        return head, [head.layout.find(blocks[bucket], head.token, hashed) for hashed, bucket in found]

    async def _blocks(self, head: Head, buckets: Sequence[int]) -> dict[int, bytes]:
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
