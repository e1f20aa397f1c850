"""The blocking side of the Redis contract, for jobs: writes generations, reads them back, swaps heads."""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from types import TracebackType
from typing import Literal, Self, TypeVar, cast

from serving.errors import EvictionRefused, GenerationLive, HeadUnreadable, StoreUnavailable, TornGeneration
from serving.head import Head, parse_head
from serving.keys import PIPELINES, block_key, claim_key, head_key, removed_key, stream_key
from serving.stream import StreamRecord, parse_stream
from serving.wire.connection import Connection
from serving.wire.replication import Masters, await_replicas, masters_of
from serving.wire.route import Reply
from serving.wire.target import address

T = TypeVar("T")

BATCH = 1000  # blocks in one round trip: about 1 MB at 64 keys a block
POLICY = re.compile(rb"maxmemory_policy:(\S+)")
REMEMBERED = 86_400  # seconds for which a removed generation cannot come back: longer than anybody thinks about it
Outcome = Literal["live", "older", "epoch", "unclaimed", "moved", "unreadable", "removed"]

# A full Redis refuses a script that writes what takes memory, unless something else was written first: with UNLINK
# before SET a claim, a swap and a rollback go through, and what they make superfluous can be removed.
# A higher token takes the claim; the same one keeps it, so that the command may be sent again.
CLAIM = """
local held = redis.call('GET', KEYS[1])
if held and tonumber(held) > tonumber(ARGV[1]) then return 0 end
redis.call('UNLINK', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1])
return 1
"""
# Numbers of a head are below 2^53, which Lua's doubles hold. The first line makes it safe to send again.
SWAP = """
local raw = redis.call('GET', KEYS[1])
if raw == ARGV[1] then return 'live' end
local new = cjson.decode(ARGV[1])
if tonumber(redis.call('GET', KEYS[2]) or 0) ~= new.token then return 'unclaimed' end
if raw then
  local readable, live = pcall(cjson.decode, raw)
  if not (readable and live.epoch and live.as_of and live.token) then return 'unreadable' end
  if new.as_of < live.as_of or (new.as_of == live.as_of and new.token <= live.token) then return 'older' end
  if new.epoch < live.epoch or (ARGV[2] and live.epoch ~= tonumber(ARGV[2])) then return 'epoch' end
end
redis.call('UNLINK', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1])
return 'live'
"""
REPLACE = """
local raw = redis.call('GET', KEYS[1]) or ''
if raw == ARGV[2] then return 'live' end
if KEYS[3] and tonumber(redis.call('GET', KEYS[3]) or 0) ~= tonumber(ARGV[3]) then return 'unclaimed' end
if raw ~= ARGV[1] then return 'moved' end
if redis.call('EXISTS', KEYS[2]) == 1 then return 'removed' end
redis.call('UNLINK', KEYS[1])
redis.call('SET', KEYS[1], ARGV[2])
return 'live'
"""
# Either the head names a generation, or nobody can make it live again.
CONDEMN = """
local raw = redis.call('GET', KEYS[1])
if raw then
  local readable, live = pcall(cjson.decode, raw)
  if not (readable and type(live) == 'table' and live.token) or live.token == tonumber(ARGV[1]) then return 0 end
end
redis.call('UNLINK', KEYS[2])
redis.call('SET', KEYS[2], 1, 'EX', ARGV[2])
return 1
"""


class Store:
    """The Redis behind a URL, reached at first use; every method may raise `StoreUnavailable` and `StoreRefused`.

    `head` raises `HeadUnreadable` as well.
    """

    def __init__(self, redis_url: str) -> None:
        self.url = redis_url
        self.connection = Connection(redis_url)
        self._masters: Masters = {}  # at the last claim

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self.connection.close()

    def require_noeviction(self) -> None:
        """Raise `EvictionRefused` unless every master refuses writes when full, rather than dropping blocks."""
        for policy in self._eviction_policies():
            if policy != "noeviction":
                raise EvictionRefused(
                    f"Redis at {address(self.url)} has maxmemory-policy {policy}, which may drop blocks of a live "
                    "generation: set maxmemory-policy noeviction in its configuration"
                )

    def register(self, pipeline: str) -> None:
        """Add `pipeline` to the set that the service lists; done before its first swap or refusal."""
        self.ask("SADD", PIPELINES, pipeline)

    def pipelines(self) -> list[str]:
        """Return the names of all pipelines that were ever published or refused, sorted."""
        return sorted(name.decode() for name in cast("list[bytes]", self.ask("SMEMBERS", PIPELINES)))

    def record(self, pipeline: str) -> bytes | None:
        """Return the head record of `pipeline` as it is, for `replace`; it may be unreadable; None for none."""
        return cast("bytes | None", self.ask("GET", head_key(pipeline)))

    def head(self, pipeline: str) -> Head | None:
        """Return the head of the live generation, or None where nothing is live."""
        raw = self.record(pipeline)
        return parse_head(raw) if raw is not None else None

    def stream(self, pipeline: str) -> StreamRecord | None:
        """Return what the stream of `pipeline` last said of itself; `StreamUnreadable` where that cannot be read."""
        raw = self.ask("GET", stream_key(pipeline))
        return parse_stream(raw) if isinstance(raw, bytes) else None

    def write_blocks(self, pipeline: str, token: int, blocks: Iterable[tuple[int, bytes]]) -> int:
        """Write (bucket, block) pairs of the generation `token` in a few round trips, and return how many.

        Replicas, if there are any, have them as well then: a failover loses none that is read back after.
        """
        written = 0
        for batch in batches(blocks, BATCH):
            self.connection.ask([("SET", block_key(pipeline, token, bucket), block) for bucket, block in batch])
            written += len(batch)
        await_replicas(self.connection)
        return written

    def read_blocks(self, pipeline: str, token: int, buckets: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """Yield (bucket, block) for each of `buckets`; raise `TornGeneration` at the first that is missing."""
        for bucket, block in self.find_blocks(pipeline, token, buckets):
            if block is None:
                raise TornGeneration(f"{pipeline}: generation {token} lacks bucket {bucket}: publish it again")
            yield bucket, block

    def find_blocks(self, pipeline: str, token: int, buckets: Iterable[int]) -> Iterator[tuple[int, bytes | None]]:
        """Yield (bucket, block) for each of `buckets`, with None for a block that is missing."""
        for batch in batches(buckets, BATCH):
            found = self.connection.ask([("GET", block_key(pipeline, token, bucket)) for bucket in batch])
            yield from zip(batch, found, strict=True)

    def count_blocks(self, pipeline: str, token: int, buckets: Iterable[int]) -> int:
        """Return how many of `buckets` have a block of the generation `token`, without reading any."""
        return self._count("EXISTS", (block_key(pipeline, token, bucket) for bucket in buckets))

    def claim(self, pipeline: str, token: int) -> bool:
        """Let `token` alone go live from now on, unless a higher one has claimed that; no earlier one can any more.

        To be taken before the head is observed and before the first block. A Redis that was emptied has lost it, and
        with it every publisher who had written blocks there.
        """
        claimed = bool(self.ask("EVAL", CLAIM, 1, claim_key(pipeline), token))
        self._masters = masters_of(self.connection)
        return claimed

    def highest_token(self, pipeline: str) -> int:
        """Return the highest token that Redis knows of, 0 for none: one above it can have the claim."""
        claimed = int(self.ask("GET", claim_key(pipeline)) or 0)
        with suppress(HeadUnreadable):
            live = self.head(pipeline)
            return claimed if live is None else max(claimed, live.token)
        return claimed

    def swap(self, head: Head, observed: Head | None = None) -> Outcome:
        """Make `head` live at once, or say why it is not, and change nothing.

        "older": what is live has a newer as_of, or the same with a higher token. "epoch": a rollback or a forced
        publication came in between, that is after `observed`. "unclaimed": its token has not the claim (any more).
        "unreadable": what is live is no head.
        """
        names = head_key(head.pipeline), claim_key(head.pipeline)
        epoch = () if observed is None else (observed.epoch,)
        return self._settled(head, "EVAL", SWAP, 2, *names, head.to_json(), *epoch)

    def replace(self, observed: bytes | None, head: Head) -> Outcome:
        """Make `head` live at once, whatever its order, if the record is still `observed`; else say "moved".

        "removed": somebody is removing its generation, or did within the last day.
        """
        names = head_key(head.pipeline), removed_key(head.pipeline, head.token)
        return self._settled(head, "EVAL", REPLACE, 2, *names, observed or b"", head.to_json())

    def replace_claimed(self, observed: bytes | None, head: Head) -> Outcome:
        """Do as `replace`, if the head's token has the claim; else say "unclaimed".

        Of what was written to a Redis that has been emptied since, the record alone would not tell: it was none before.
        """
        names = head_key(head.pipeline), removed_key(head.pipeline, head.token), claim_key(head.pipeline)
        return self._settled(head, "EVAL", REPLACE, 3, *names, observed or b"", head.to_json(), head.token)

    def remove_generation(self, pipeline: str, token: int, buckets: Iterable[int]) -> int:
        """Unlink the blocks of a generation and return how many there were; `GenerationLive` for the live one.

        A head that cannot be read may name any. From the first unlink on, and for a day, nobody can make it live.
        """
        try:
            live = self.head(pipeline)
        except HeadUnreadable as fault:
            raise GenerationLive(f"{pipeline}: generation {token} may be live and stays: {fault}") from fault
        if live is not None and live.token == token:
            raise GenerationLive(f"{pipeline}: generation {token} is live and stays: publish another one first")
        marked = removed_key(pipeline, token)
        if not self.ask("EVAL", CONDEMN, 2, head_key(pipeline), marked, token, REMEMBERED):
            raise GenerationLive(f"{pipeline}: generation {token} went live at this moment and stays")
        return self.unlink(block_key(pipeline, token, bucket) for bucket in buckets)

    def unlink(self, names: Iterable[str]) -> int:
        """Remove keys in the background, and return how many there were."""
        return self._count("UNLINK", names)

    def ask(self, *command: str | bytes | int) -> Reply:
        """Return the reply to one command."""
        return self.connection.ask([command])[0]

    def _count(self, command: str, names: Iterable[str]) -> int:
        """Return the sum of what a command replies for each key."""
        return sum(sum(self.connection.ask([(command, name) for name in batch])) for batch in batches(names, BATCH))

    def _settled(self, head: Head, *script: str | bytes | int) -> Outcome:
        """Run a script that makes a head live, so that no failover tears its generation or takes the head back."""
        before = masters_of(self.connection)
        if self._masters.keys() <= before.keys():
            before = {**before, **self._masters}
        else:
            self._require_blocks(head)
        outcome = cast("Outcome", self.ask(*script).decode())
        if outcome == "live" and not before.keys() <= await_replicas(self.connection, before).keys():
            raise StoreUnavailable(
                f"Redis at {address(self.url)} has changed its master while {head.pipeline} went live with generation "
                f"{head.token}, and may have forgotten it: run the task again"
            )
        return outcome

    def _require_blocks(self, head: Head) -> None:
        """Raise `TornGeneration` unless all blocks are still there."""
        buckets = range(head.layout.buckets)
        lost = len(buckets) - self.count_blocks(head.pipeline, head.token, buckets)
        if lost:
            raise TornGeneration(
                f"{head.pipeline}: generation {head.token} lost {lost} blocks with a master of Redis at "
                f"{address(self.url)} that was restarted or replaced: publish it again"
            )

    def _eviction_policies(self) -> list[str]:
        """Managed servers close CONFIG, least-privilege users often both; what cannot be known is not trusted."""
        told = self.connection.ask_all(("INFO", "memory"))
        found = [POLICY.search(reply) if isinstance(reply, bytes) else None for reply in told]
        if None in found:
            return self._configured_policies()
        return [policy[1].decode() for policy in found if policy is not None]

    def _configured_policies(self) -> list[str]:
        told = self.connection.ask_all(("CONFIG", "GET", "maxmemory-policy"))
        for refused in told:
            if isinstance(refused, Exception):
                raise EvictionRefused(
                    f"Redis at {address(self.url)} hides its maxmemory-policy ({refused}): allow this user INFO"
                ) from refused
        return [reply[1].decode() if reply else "unknown" for reply in told]


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """`itertools.batched` of Python 3.12, for 3.11."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch
