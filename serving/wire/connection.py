"""How jobs reach Redis, and what its faults are called here."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from time import monotonic, sleep
from typing import Any

from redis import ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import ClusterDownError, RedisError, ResponseError, TryAgainError
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import TimeoutError as TooLate
from redis.retry import Retry

from serving.errors import StoreRefused, StoreUnavailable
from serving.wire.route import REFUSED, Answer, Answers, Command, Course, Questions, Reply, faults_in, will_pass
from serving.wire.target import Place, address, target_of
from serving.wire.topology import route_of

CONNECT_SECONDS = 2.0
REPLY_SECONDS = 5.0  # a publication waits for a busy Redis; a lookup has no time for it
PATIENCE_SECONDS = 10.0
PAUSES = ExponentialWithJitterBackoff(base=0.1, cap=1)
REMEDIES = {
    "OOM": "it is full: raise its maxmemory, or let publication.keep be fewer generations",
    "MISCONF": "it cannot save to its disk: make room there, or look into its log",
    "NOPERM": "give this user what infra/redis/users.acl gives it",
    "WRONGTYPE": "one of Scoreline's keys is somebody else's: remove it, or name a database of its own in the URL",
    "READONLY": "it is a replica: name its master, or its sentinels, in SCORELINE_REDIS_URL",
    "NOREPLICAS": "it has fewer replicas than min-replicas-to-write: start them",
    "": "compare its version and its users with infra/redis, and correct SCORELINE_REDIS_URL",
}
IN_SCRIPT = "user executing the script"  # Redis 7 has no code for what a script's user may not do
AWAY = (NotConnected, TooLate, ClusterDownError, TryAgainError)


class Connection:
    """The servers behind a URL, as jobs ask them; they are connected at first use.

    Where nobody answers, or a master or a slot is on the move, it asks again for ten seconds, and so commands must bear
    to be sent again. The last try may add a second's pause before it, two seconds to connect (to each address of a
    host) and five for the answer: a command to a Redis that does not answer fails with `StoreUnavailable` within 18 s.
    Refused credentials fail at once, with `StoreRefused`.
    """

    def __init__(self, url: str) -> None:
        target = target_of(url)
        self.url = url
        self.sharded = target.kind == "cluster"
        self._route = route_of(target)
        self._servers: dict[Place, _Server] = {}

    def ask(self, commands: Sequence[Command]) -> list[Reply]:
        """Return the reply to each command, in order, in one round trip; raise `StoreRefused` for one that is refused.

        A reply is bytes, an int, None, or a list of these.
        """
        replies = self._patiently(lambda: self._route.to_keys(commands)) if commands else []
        with redis_faults(self.url):
            for fault in faults_in(replies):
                raise fault
        return replies

    def ask_all(self, command: Command) -> list[Reply]:
        """Return what each master replies to a command; where one refuses it, redis' exception in the reply's place."""
        return self._patiently(lambda: self._route.to_all(command))

    def close(self) -> None:
        """Close all connections."""
        for server in self._servers.values():
            server.close()

    def _patiently(self, course: Callable[[], Course]) -> list[Reply]:
        deadline, failures = monotonic() + PATIENCE_SECONDS, 0
        with redis_faults(self.url):
            while True:
                try:
                    return _lasting(self._follow(course()))
                except RedisError as fault:
                    if monotonic() > deadline or not will_pass(fault):
                        raise
                failures += 1
                self.close()  # the same address may be another server's by now
                sleep(PAUSES.compute(failures))

    def _follow(self, course: Course) -> list[Reply]:
        try:
            questions = next(course)
            while True:
                questions = course.send(self._answers(questions))
        except StopIteration as end:
            return list(end.value)

    def _answers(self, questions: Questions) -> Answers:
        """Ask all servers before the first reply is awaited, so that they work at the same time."""
        for place in questions.keys() - self._servers.keys():
            self._servers[place] = _Server(place)
        sent = {place: self._servers[place].send(commands) for place, commands in questions.items()}
        return {place: self._servers[place].receive(way, len(questions[place])) for place, way in sent.items()}


def _lasting(replies: list[Reply]) -> list[Reply]:
    """Return replies of which none will be another one in a moment, else raise the first that will."""
    for fault in filter(will_pass, faults_in(replies)):
        raise fault
    return replies


class _Server:
    """The connections to one server."""

    def __init__(self, place: Place) -> None:
        self._pool = ConnectionPool(**_options(place))

    def send(self, commands: list[Command]) -> Any:
        """Send commands, and return redis-py's connection that replies will come on, or the exception why none will."""
        try:
            wire: Any = self._pool.get_connection()
        except RedisError as fault:
            return fault
        try:
            wire.send_packed_command(wire.pack_commands(commands))
        except RedisError as fault:
            self._pool.release(wire)
            return fault
        return wire

    def receive(self, sent: Any, count: int) -> Answer:
        """Return the replies to as many commands, or why there are none."""
        if isinstance(sent, Exception):
            return sent
        try:
            return [_reply(sent) for _ in range(count)]
        except RedisError as fault:
            sent.disconnect()  # further replies would be taken for those of the next commands
            return fault
        finally:
            self._pool.release(sent)

    def close(self) -> None:
        """Close the connections that nobody uses."""
        self._pool.disconnect(inuse_connections=False)


def _reply(wire: Any) -> Reply:
    try:
        return wire.read_response()
    except ResponseError as refused:
        return refused


def _options(place: Place) -> dict[str, Any]:
    """Return what redis-py makes a connection of: raw replies, no retries of its own, and no greetings but AUTH."""
    options: dict[str, Any] = {
        "username": place.username,
        "password": place.password,
        "db": place.db,
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_timeout": REPLY_SECONDS,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "driver_info": None,
    }
    if place.path is not None:
        return {**options, "connection_class": UnixDomainSocketConnection, "path": place.path}
    options |= {"host": place.host, "port": place.port}
    if place.tls is None:
        return options
    tls = {f"ssl_{option.name}": getattr(place.tls, option.name) for option in fields(place.tls)}
    return {**options, "connection_class": SSLConnection, **tls}


@contextmanager
def redis_faults(url: str) -> Iterator[None]:
    """Turn the client's exceptions into `StoreUnavailable` and `StoreRefused`."""
    try:
        yield
    except REFUSED as fault:
        raise StoreRefused(
            f"Redis at {address(url)} refuses this user: correct the credentials in SCORELINE_REDIS_URL ({fault})"
        ) from fault
    except AWAY as fault:
        raise StoreUnavailable(
            f"Redis at {address(url)} does not answer ({fault}): start it, or set SCORELINE_REDIS_URL"
        ) from fault
    except RedisError as fault:
        raise StoreRefused(f"Redis at {address(url)} refuses a command: {_remedy(fault)} ({fault})") from fault


def _remedy(fault: RedisError) -> str:
    """Return what to do about an error reply, by its code; redis-py takes from the text the codes that it knows."""
    code = getattr(fault, "status_code", None) or str(fault).split(" ")[0]
    return REMEDIES["NOPERM" if IN_SCRIPT in str(fault) else code if code in REMEDIES else ""]
