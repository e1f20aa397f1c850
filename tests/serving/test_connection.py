"""How Redis is reached: which URLs are taken, how long a job waits, and what refused credentials are called."""

import asyncio
import re
import signal
import socket
import socketserver
import subprocess
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from itertools import count
from pathlib import Path
from threading import Thread

import pytest
import redis
from redis.crc import key_slot

from serving.errors import SettingsError, StoreRefused, StoreUnavailable
from serving.keys import claim_key, head_key
from serving.reader import Reader
from serving.settings import Settings, settings
from serving.store import Store
from serving.wire.target import Tls, address, target_of
from tests.conftest import free_port, redis_at
from tests.serving.topologies import MASTERS, SLOTS, Site

BAD = [
    "http://host:6379/0",
    "redis://host:abc/0",
    "redis://host:99999/0",
    "redis://host/0?db=x",
    "redis://host?bogus=1",
    "redis://host/foo",
    "redis://host/1/2",
    "redis://:hid/den@host:6379/0",
    "redis://:12/hidden@host:6379/0",
    "redis://:12?hidden@host:6379/0",
    "redis://:12#hidden@host:6379/0",
    "redis:///0",
    "unix://hidden",
    "unix://hidden/run/redis.sock",
    "redis://host,hidden:6379/0",
    "redis://host?ssl_ca_certs=hidden",
    "rediss://host?ssl_ca_certs=/hidden.pem",
    "rediss://host?ssl_keyfile=hidden",
    "rediss://host?ssl_cert_reqs=hidden",
    "redis://host?sentinel_password=hidden",
    "redis+sentinel://:hid/den@host:26379/scores",
    "redis+sentinel://host:26379",
    "redis+sentinel://host:26379,/scores",
    "redis+sentinel://host:26379/scores/x",
    "redis+sentinel:///scores",
    "redis+cluster://host:6379/1",
    "redis+cluster://host:6379?db=1",
    "redis+cluster://:12,34/hidden@host:6379",
    "redis+hidden://host:6379",
]


@pytest.mark.parametrize("url", BAD)
def test_a_wrong_url_is_refused_by_the_name_of_its_variable_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("SCORELINE_REDIS_URL", url)
    with pytest.raises(SettingsError, match=r"^SCORELINE_REDIS_URL: .*write redis://user:password@host") as refused:
        settings.__wrapped__()
    told = "".join(traceback.format_exception(refused.value))
    assert url not in told
    assert "hid" not in told


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host", "host"),
        ("redis://user:a%2Fb%23@host:6380/3", "host:6380"),
        ("rediss://:secret@host:6380/0?ssl_cert_reqs=none", "host:6380"),
        ("redis://[::1]:6379/0", "[::1]:6379"),
        ("unix:///run/redis.sock?db=1", "/run/redis.sock"),
        ("unix://user:secret@/run/redis.sock", "/run/redis.sock"),
        ("redis+sentinel://user:secret@a:1,b/scores/3?sentinel_password=secret", "a:1,b/scores"),
        ("rediss+sentinel://a:1/scores?ssl_check_hostname=no", "a:1/scores"),
        ("redis+cluster://user:secret@a:1,b:2", "a:1,b:2"),
    ],
)
def test_a_good_url_is_taken_and_its_address_shows_no_credentials(url: str, shown: str) -> None:
    assert address(Settings(redis_url=url).redis_url) == shown


def test_a_url_says_how_to_sign_in_at_sentinels_and_at_those_they_name() -> None:
    url = "rediss+sentinel://user:a%2Fb@a:1,[::1]/scores/3?sentinel_username=guard&sentinel_password=c%26d"
    target = target_of(f"{url}&ssl_cert_reqs=optional")
    named = target.master.at("c", 3)
    assert (named.username, named.password, named.db, target.service) == ("user", "a/b", 3, "scores")
    assert [str(place) for place in (*target.places, named)] == ["a:1", "[::1]:26379", "c:3"]
    assert {(place.username, place.password, place.db) for place in target.places} == {("guard", "c&d", 0)}
    assert {place.tls for place in target.places} == {named.tls} == {Tls(cert_reqs="optional")}
    assert not {"a/b", "c&d"} & set(re.findall("[^']+", repr(target)))


def test_a_socket_that_is_not_there_is_named(tmp_path: Path) -> None:
    async def ping() -> None:
        await Reader.at(f"unix://{tmp_path}/redis.sock").ping()

    with pytest.raises(StoreUnavailable, match=rf"Redis at {tmp_path}/redis\.sock does not answer"):
        asyncio.run(ping())


def ask_as_job(url: str) -> None:
    with Store(url) as store:
        store.head("any")


def ask_as_service(url: str) -> None:
    async def ask() -> None:
        reader = Reader.at(url)
        try:
            await reader.ping()
        finally:
            await reader.close()

    asyncio.run(ask())


@pytest.mark.parametrize("ask", [ask_as_job, ask_as_service])
@pytest.mark.parametrize("user", ["reader:wrong@", ""], ids=["wrong password", "no password"])
def test_refused_credentials_are_told_at_once(
    servers: ExitStack, tmp_path: Path, ask: Callable[[str], None], user: str
) -> None:
    port = free_port()
    acl = ("--user", *["reader", "on", ">secret", "~*", "+@all"], "--user", *["default", "off"])
    servers.enter_context(redis_at(port, tmp_path, *acl))
    started = time.monotonic()
    with pytest.raises(StoreRefused, match=r"refuses this user: correct the credentials in SCORELINE_REDIS_URL"):
        ask(f"redis://{user}127.0.0.1:{port}/0")
    assert time.monotonic() - started < 5


class Forwarder(socketserver.ThreadingTCPServer):
    """An address before servers, as of a load balancer: new connections go to `port`, old ones stay where they are."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), Forwarded)
        self.port = port
        Thread(target=self.serve_forever, daemon=True).start()


class Forwarded(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Forwarder)
        with socket.create_connection(("127.0.0.1", self.server.port)) as far:
            back = Thread(target=copy, args=(far, self.request), daemon=True)
            back.start()
            copy(self.request, far)
            back.join()


def copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def test_a_job_follows_an_address_that_leads_to_another_master(servers: ExitStack, tmp_path: Path) -> None:
    site = Site(tmp_path, servers)
    old, new = site.start(), site.start()
    address_of_both = servers.enter_context(Forwarder(old.port))
    servers.callback(address_of_both.shutdown)
    url = site.url("publisher", old).replace(str(old.port), str(address_of_both.server_address[1]))
    with Store(url) as store:
        assert store.claim("led", 1)
        address_of_both.port = new.port
        old.raw.replicaof("127.0.0.1", new.port)
        assert store.claim("led", 2)
    assert new.raw.get(claim_key("led")) == b"2"


def test_a_job_gives_up_on_a_redis_that_hangs_within_the_documented_bound(servers: ExitStack, tmp_path: Path) -> None:
    port = free_port()
    hanging = servers.enter_context(redis_at(port, tmp_path))
    urls = [f"redis://127.0.0.1:{port}/0"] * 2
    assert all(9 < seconds < 18 for seconds in given_up(servers, urls, [hanging]))


def test_a_job_gives_up_as_soon_where_sentinels_or_a_cluster_are_behind_the_url(
    servers: ExitStack, tmp_path: Path
) -> None:
    """Of the servers below the sentinels all hang, of the cluster one master does."""
    site = Site(tmp_path, servers)
    nodes, master = site.cluster(), site.start()
    hanging = [nodes[0].process, master.process, site.replica_of(master).process]
    sentinels = site.url("publisher", *site.sentinels(master), kind="+sentinel")
    urls = [sentinels] * 2 + [site.url("publisher", *nodes, kind="+cluster")] * 2
    assert all(9 < seconds < 18 for seconds in given_up(servers, urls, hanging))


def given_up(servers: ExitStack, urls: list[str], hanging: list["subprocess.Popen[bytes]"]) -> list[float]:
    """Let servers hang, and return after how many seconds a job gives up on each URL."""
    stores = [servers.enter_context(Store(url)) for url in urls]
    # Of a cluster the first master has its slot.
    pipeline = next(name for name in map(str, count()) if key_slot(head_key(name).encode()) < SLOTS // MASTERS)
    for store in stores[::2]:  # so that every other one is connected
        assert store.head(pipeline) is None
    for process in hanging:
        process.send_signal(signal.SIGSTOP)
        servers.callback(process.send_signal, signal.SIGCONT)
    with ThreadPoolExecutor() as pool:
        return list(pool.map(partial(seconds_until_given_up, pipeline), stores))


def seconds_until_given_up(pipeline: str, store: Store) -> float:
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match="does not answer"):
        store.head(pipeline)
    return time.monotonic() - started


def test_what_a_redis_refuses_is_said_with_what_to_do(servers: ExitStack, tmp_path: Path) -> None:
    port = free_port()
    limited = ("--user", *["limited", "on", ">secret", "~scoreline:*", "+get", "+eval"])
    servers.enter_context(redis_at(port, tmp_path, "--dir", str(tmp_path), *limited))
    server = redis.Redis(port=port)

    def refused(*command: str, user: str = "") -> str:
        with Store(f"redis://{user}127.0.0.1:{port}") as store, pytest.raises(StoreRefused) as told:
            store.ask(*command)
        return str(told.value)

    one = "scoreline:one"
    assert "give this user what infra/redis/users.acl" in refused("SET", one, "1", user="limited:secret@")
    script = "return redis.call('SET', KEYS[1], 1)"
    assert "give this user what infra/redis/users.acl" in refused("EVAL", script, "1", one, user="limited:secret@")
    server.set(one, 1)
    assert "one of Scoreline's keys is somebody else's" in refused("SADD", one, "1")
    server.config_set("maxmemory", 1)
    assert "it is full: raise its maxmemory" in refused("SET", one, "1")
    assert "it is full: raise its maxmemory" in refused("EVAL", script, "1", one)
    server.config_set("maxmemory", 0)
    assert "compare its version and its users with infra/redis" in refused("NO-COMMAND")


def test_a_redis_that_cannot_save_says_to_make_room(servers: ExitStack, tmp_path: Path) -> None:
    port = free_port()
    servers.enter_context(redis_at(port, tmp_path, "--save", "3600 1", "--dbfilename", "dump"))
    server = redis.Redis(port=port)
    (tmp_path / "dump").mkdir()  # what a full disk does: no file can be put there
    server.bgsave()
    while server.info("persistence")["rdb_last_bgsave_status"] == "ok":
        time.sleep(0.05)
    with Store(f"redis://127.0.0.1:{port}") as store, pytest.raises(StoreRefused, match="make room there"):
        store.claim("unsaved", 1)
