"""How Redis is reached, and what its faults are called here."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, TypeVar
from urllib.parse import SplitResult, parse_qsl, urlsplit

import redis
from redis.asyncio import BlockingConnectionPool
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, RedisError
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import TimeoutError as TooLate
from redis.retry import Retry

from serving.errors import StoreRefused, StoreUnavailable

T = TypeVar("T")

CONNECT_SECONDS = 2.0
REPLY_SECONDS = 5.0  # a publication waits for a busy Redis; a lookup has no time for it
PATIENCE_SECONDS = 10.0
REFUSED = (AuthenticationError, AuthorizationError)  # to the client they are faults of the connection
LOOKUP_SECONDS = 0.5
LOOKUP_CONNECTIONS = 32
URL_REMEDY = (
    "it is no URL of a Redis: write redis://user:password@host:port/0, rediss:// for TLS, or unix:///path?db=0, with "
    "special characters of the password percent-encoded"
)


def job_connection(url: str) -> redis.Redis:
    """Return a blocking client that waits for a Redis which is away for a moment; it connects at first use.

    It tries again for ten seconds. The last try may add a second's pause before it, two seconds to connect (to each
    address of the host) and five for the answer: a command to a Redis that does not answer fails within 18 s. Refused
    credentials fail at once.
    """
    return redis.Redis.from_url(
        url, socket_timeout=REPLY_SECONDS, socket_connect_timeout=CONNECT_SECONDS, retry=_Patience()
    )


class _Patience(Retry):
    """Tries again until a deadline, and at the outermost level alone: the client connects, retrying, in each retry."""

    def __init__(self) -> None:
        super().__init__(ExponentialWithJitterBackoff(base=0.1, cap=1), retries=-1)
        self._deadline: float | None = None

    def call_with_retry(self, do: Callable[[], T], *how: Any, **named: Any) -> T:
        """Call `do` until it succeeds, the deadline is over, or the credentials are refused."""
        if self._deadline is not None:
            return do()
        self._deadline = monotonic() + PATIENCE_SECONDS
        try:
            return super().call_with_retry(do, *how, **{**named, "is_retryable": self._may_help})
        finally:
            self._deadline = None

    def _may_help(self, fault: Exception) -> bool:
        return not isinstance(fault, REFUSED) and self._deadline is not None and monotonic() < self._deadline


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
    """Return host and port of a Redis URL, or the path of its socket, without its credentials."""
    parts = urlsplit(url)
    return parts.path if parts.scheme == "unix" else parts.netloc.rpartition("@")[2]


def require_url(url: str) -> None:
    """Raise `ValueError`, which does not show the URL, unless both clients can be made of it; nothing is connected.

    The client itself takes a database that is no number for 0, and half of a password with a slash for a port.
    """
    try:
        parts = urlsplit(url)
        _require_place(parts)
        for pool in (job_connection(url).connection_pool, lookup_connection(url).connection_pool):
            pool.make_connection()
    except (ValueError, TypeError, RedisError):
        raise ValueError(URL_REMEDY) from None


def _require_place(parts: SplitResult) -> None:
    if parts.query:
        parse_qsl(parts.query, strict_parsing=True)
    if parts.fragment or (parts.scheme in ("redis", "rediss") and not parts.hostname):
        raise ValueError
    if not re.fullmatch("/.+" if parts.scheme == "unix" else "/?[0-9]*", parts.path):
        raise ValueError


@contextmanager
def redis_faults(url: str) -> Iterator[None]:
    """Turn the client's exceptions into `StoreUnavailable` and `StoreRefused`."""
    try:
        yield
    except REFUSED as fault:
        raise StoreRefused(
            f"Redis at {address(url)} refuses this user: correct the credentials in SCORELINE_REDIS_URL ({fault})"
        ) from fault
    except (NotConnected, TooLate) as fault:
        raise StoreUnavailable(
            f"Redis at {address(url)} does not answer ({fault}): start it, or set SCORELINE_REDIS_URL"
        ) from fault
    except RedisError as fault:
        raise StoreRefused(f"Redis at {address(url)} refuses a command: {fault}") from fault
