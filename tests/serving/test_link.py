"""One connection carries many requests: replies in order, faults in their place, lost connections replaced."""

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TypeVar

import pytest
import redis
from redis.exceptions import BusyLoadingError, NoPermissionError, ResponseError

from serving.errors import StoreRefused, StoreUnavailable
from serving.wire.link import ServerLink, _fault
from serving.wire.target import Place, target_of
from tests.conftest import free_port, redis_at

T = TypeVar("T")


def over(url: str, work: Callable[[ServerLink], Awaitable[T]]) -> T:
    async def session() -> T:
        link = ServerLink(*target_of(url).places)
        try:
            return await work(link)
        finally:
            await link.close()

    return asyncio.run(session())


def test_replies_come_in_order_with_errors_in_their_place(redis_url: str) -> None:
    async def work(link: ServerLink) -> list[object]:
        return await link.ask([("ECHO", "a"), ("GET",), ("ECHO", b"\xff"), ("STRLEN", "no such key"), ("ECHO", 7)])

    first, fault, third, fourth, last = over(redis_url, work)
    assert (first, third, fourth, last) == (b"a", b"\xff", 0, b"7")
    assert isinstance(fault, ResponseError)


def test_many_who_ask_at_once_share_a_connection_and_have_their_own_answers(redis_url: str) -> None:
    async def work(link: ServerLink) -> tuple[list[list[object]], int]:
        async def ask(number: int) -> list[object]:
            return await link.ask([("ECHO", f"{number}.{part}") for part in range(number % 5 + 1)])

        with redis.Redis.from_url(redis_url) as other:
            before = other.info("stats")["total_connections_received"]
            answers = await asyncio.gather(*(ask(number) for number in range(500)))
            return answers, other.info("stats")["total_connections_received"] - before

    answers, connections = over(redis_url, work)
    assert answers == [[f"{n}.{part}".encode() for part in range(n % 5 + 1)] for n in range(500)]
    assert connections == 1


def test_who_has_gone_takes_no_answer_from_others(redis_url: str) -> None:
    async def work(link: ServerLink) -> list[object]:
        await link.ask([("PING",)])
        gone = asyncio.ensure_future(link.ask([("ECHO", "gone")]))
        await asyncio.sleep(0)
        gone.cancel()
        return await link.ask([("ECHO", "here")])

    assert over(redis_url, work) == [b"here"]


@pytest.mark.parametrize("turns", [*range(8), 200])
@pytest.mark.parametrize("database", [0, 1])
def test_no_connection_outlives_its_link(redis_url: str, turns: int, database: int) -> None:
    """Whoever asked goes at any moment, of which the last is when the connection is there: nobody else knows of it."""

    async def session() -> set[str]:
        with redis.Redis.from_url(redis_url) as other:
            before = {client["id"] for client in other.client_list()}
            link = ServerLink(*target_of(f"{redis_url.removesuffix('/0')}/{database}").places)
            gone = asyncio.ensure_future(link.ask([("PING",)]))
            for _ in range(turns):
                await asyncio.sleep(0 if turns < 100 else 0.0005)
            gone.cancel()
            assert turns < 100 or await link.ask([("PING",)]) == [b"PONG"]
            await link.close()
            await asyncio.sleep(0.02)
            return {client["id"] for client in other.client_list()} - before

    assert asyncio.run(session()) == set()


def test_a_connection_that_the_server_closed_is_replaced(redis_url: str) -> None:
    async def work(link: ServerLink) -> list[object]:
        (number,) = await link.ask([("CLIENT", "ID")])
        with redis.Redis.from_url(redis_url) as other:
            other.client_kill_filter(_id=number)
        return await link.ask([("ECHO", "again")])

    assert over(redis_url, work) == [b"again"]


def test_a_server_that_hangs_is_given_up_and_found_again(servers: ExitStack, tmp_path: Path) -> None:
    port = free_port()
    server = servers.enter_context(redis_at(port, tmp_path))

    async def work(link: ServerLink) -> list[object]:
        await link.ask([("PING",)])
        server.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(StoreUnavailable, match=rf"127\.0\.0\.1:{port} does not answer \(no reply within"):
                await link.ask([("PING",)])
        finally:
            server.send_signal(signal.SIGCONT)
        return await link.ask([("ECHO", "back")])

    assert over(f"redis://127.0.0.1:{port}/0", work) == [b"back"]


def test_what_accepts_and_says_nothing_is_given_up() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        url = f"redis://:secret@127.0.0.1:{silent.getsockname()[1]}/0"
        with pytest.raises(StoreUnavailable, match=r"^(?!.*secret).*no reply within"):
            over(url, lambda link: link.ask([("PING",)]))


def test_what_is_no_redis_is_told(servers: ExitStack) -> None:
    async def work() -> None:
        async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(babble, "127.0.0.1", 0)
        async with server:
            link = ServerLink(Place("127.0.0.1", server.sockets[0].getsockname()[1]))
            with pytest.raises(StoreUnavailable, match="no Redis"):
                await link.ask([("PING",)])

    asyncio.run(work())


def test_a_unix_socket_a_user_and_a_database_are_taken_from_the_url(servers: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "s"
    user = ("--user", *["reader", "on", ">sec/ret", "~*", "+@all"])
    servers.enter_context(redis_at(free_port(), tmp_path, "--unixsocket", str(path), *user))

    async def work(link: ServerLink) -> list[object]:
        return await link.ask([("ACL", "WHOAMI"), ("CLIENT", "INFO")])

    who, info = over(f"unix://reader:sec%2Fret@{path}?db=3", work)
    assert who == b"reader"
    assert isinstance(info, bytes)
    assert b" db=3 " in info


def test_a_database_that_is_not_there_is_refused(redis_url: str) -> None:
    with pytest.raises(StoreRefused, match="DB index"):
        over(redis_url.removesuffix("0") + "999", lambda link: link.ask([("PING",)]))


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("NOPERM this user has no permissions", NoPermissionError),
        ("LOADING Redis is loading the dataset in memory", BusyLoadingError),
        ("WRONGTYPE Operation against a key", ResponseError),
    ],
)
def test_an_error_is_called_what_the_client_calls_it(message: str, kind: type[Exception]) -> None:
    assert type(_fault(message)) is kind
