"""The blocking side of the Redis contract, for jobs: writes generations, reads them back, swaps heads."""

from collections.abc import Iterable, Iterator
from itertools import islice
from types import TracebackType
from typing import Self, TypeVar, cast

from redis.exceptions import NoPermissionError, ResponseError

from serving.connection import address, job_connection, redis_faults
from serving.errors import EvictionRefused, GenerationLive, TornGeneration
from serving.head import Head, parse_head
from serving.keys import PIPELINES, block_key, head_key

T = TypeVar("T")

BATCH = 1000  # blocks in one round trip: about 1 MB at 64 keys a block
# The last line but one makes the swap safe to send again when its answer was lost.
SWAP = """
local live = redis.call('GET', KEYS[1]) or ''
if live == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]) return 1 end
if live == ARGV[2] then return 1 end
return 0
"""


class Store:
    """One Redis, reached at first use; every method may raise `StoreUnavailable` and `StoreRefused`.

    `observe` and what reads the head through it, `head` and `remove_generation`, raise `HeadUnreadable` as well.
    """

    def __init__(self, redis_url: str) -> None:
        self.url = redis_url
        self._redis = job_connection(redis_url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self._redis.close()

    def require_noeviction(self) -> None:
        """Raise `EvictionRefused` unless this Redis refuses writes when full, rather than dropping blocks."""
        policy = self._eviction_policy()
        if policy != "noeviction":
            raise EvictionRefused(
                f"Redis at {address(self.url)} has maxmemory-policy {policy}, which may drop blocks of a live "
                "generation: set maxmemory-policy noeviction in its configuration"
            )

    def register(self, pipeline: str) -> None:
        """Add `pipeline` to the set that the service lists; done before its first swap."""
        with redis_faults(self.url):
            self._redis.sadd(PIPELINES, pipeline)

    def observe(self, pipeline: str) -> tuple[bytes | None, Head | None]:
        """Return the head record of `pipeline` as bytes, which `swap` compares, and read; None where there is none."""
        with redis_faults(self.url):
            raw = cast("bytes | None", self._redis.get(head_key(pipeline)))
        return raw, parse_head(raw) if raw is not None else None

    def head(self, pipeline: str) -> Head | None:
        """Return the head of the live generation, or None where nothing is live."""
        return self.observe(pipeline)[1]

    def write_blocks(self, pipeline: str, token: int, blocks: Iterable[tuple[int, bytes]]) -> int:
        """Write (bucket, block) pairs of the generation `token` in a few round trips, and return how many."""
        written = 0
        for batch in _batches(blocks, BATCH):
            with redis_faults(self.url), self._redis.pipeline(transaction=False) as pipe:
                for bucket, block in batch:
                    pipe.set(block_key(pipeline, token, bucket), block)
                pipe.execute()
            written += len(batch)
        return written

    def read_blocks(self, pipeline: str, token: int, buckets: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """Yield (bucket, block) for each of `buckets`; raise `TornGeneration` at the first that is missing."""
        for batch in _batches(buckets, BATCH):
            with redis_faults(self.url), self._redis.pipeline(transaction=False) as pipe:
                for bucket in batch:
                    pipe.get(block_key(pipeline, token, bucket))
                found = cast("list[bytes | None]", pipe.execute())
            for bucket, block in zip(batch, found, strict=True):
                if block is None:
                    raise TornGeneration(f"{pipeline}: generation {token} lacks bucket {bucket}: publish it again")
                yield bucket, block

    def swap(self, observed: bytes | None, head: Head) -> bool:
        """Make `head` live at once if the record is still `observed`; else change nothing and return False."""
        with redis_faults(self.url):
            return bool(self._redis.eval(SWAP, 1, head_key(head.pipeline), observed or b"", head.to_json()))

    def remove_generation(self, pipeline: str, token: int, buckets: Iterable[int]) -> int:
        """Unlink the blocks of a generation and return how many there were; `GenerationLive` for the live one."""
        live = self.head(pipeline)
        if live is not None and live.token == token:
            raise GenerationLive(f"{pipeline}: generation {token} is live and stays: publish another one first")
        removed = 0
        for batch in _batches(buckets, BATCH):
            with redis_faults(self.url), self._redis.pipeline(transaction=False) as pipe:
                for bucket in batch:
                    pipe.unlink(block_key(pipeline, token, bucket))
                removed += sum(cast("list[int]", pipe.execute()))
        return removed

    def _eviction_policy(self) -> str:
        """Managed servers close CONFIG, least-privilege users often both; what cannot be known is not trusted."""
        with redis_faults(self.url):
            try:
                return str(self._redis.info("memory")["maxmemory_policy"])
            except (NoPermissionError, ResponseError, KeyError):
                return self._configured_policy()

    def _configured_policy(self) -> str:
        try:
            return str(dict(self._redis.config_get("maxmemory-policy")).get("maxmemory-policy", "unknown"))
        except (NoPermissionError, ResponseError) as fault:
            raise EvictionRefused(
                f"Redis at {address(self.url)} hides its maxmemory-policy ({fault}): allow this user INFO"
            ) from fault


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """`itertools.batched` of Python 3.12, for 3.11."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch
