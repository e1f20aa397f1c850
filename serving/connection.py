"""How Redis is reached, and what its faults are called here."""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import redis
from redis.asyncio import BlockingConnectionPool
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as TooLate
from redis.retry import Retry

from serving.errors import StoreRefused, StoreUnavailable

JOB_SECONDS = 30.0  # a publication waits for a busy Redis; a lookup has no time for it
LOOKUP_SECONDS = 0.5
LOOKUP_CONNECTIONS = 32


def job_connection(url: str) -> redis.Redis:
    """Return a blocking client that tries for some ten seconds before it gives up; it connects at first use."""
    retry = Retry(ExponentialWithJitterBackoff(base=0.1, cap=3), retries=7)
    return redis.Redis.from_url(url, socket_timeout=JOB_SECONDS, socket_connect_timeout=JOB_SECONDS, retry=retry)


def lookup_connection(url: str) -> AsyncRedis:
    """Return an asynchronous client that fails fast; it connects at first use and again after a fault."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=LOOKUP_CONNECTIONS,
        timeout=LOOKUP_SECONDS,
        socket_timeout=LOOKUP_SECONDS,
        socket_connect_timeout=LOOKUP_SECONDS,
        retry=AsyncRetry(NoBackoff(), retries=1),  # once: a pooled connection may be from before a restart
    )
    return AsyncRedis.from_pool(pool)


def address(url: str) -> str:
    """Return host and port of a Redis URL, without its credentials."""
    return urlsplit(url).netloc.rpartition("@")[2]


@contextmanager
def redis_faults(url: str) -> Iterator[None]:
    """Turn the client's exceptions into `StoreUnavailable` and `StoreRefused`."""
    try:
        yield
    except (NotConnected, TooLate) as fault:
        raise StoreUnavailable(
            f"Redis at {address(url)} does not answer ({fault}): start it, or set SCORELINE_REDIS_URL"
        ) from fault
    except RedisError as fault:
        raise StoreRefused(f"Redis at {address(url)} refuses a command: {fault}") from fault
