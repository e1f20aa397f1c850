"""Redis as people run it: users, TLS, replicas, sentinels, clusters; real servers on free ports, below one folder."""

import asyncio
import re
import subprocess
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import pytest
import redis
from redis.crc import key_slot

from infra.redis.users import acl_file
from serving.wire.link import Link
from serving.wire.routed import link
from tests.conftest import await_port, free_port, redis_binary, stop
from tests.serving.certificates import Certificates

T = TypeVar("T")

LOOPBACK = "127.0.0.1"
# Each has characters that a URL must escape.
PASSWORDS = {user: f"{user}/of:a@test?" for user in ("admin", "publisher", "reader", "replica", "sentinel")}
GUARD = "the/sentinels:own@"
SERVICE = "scores"
MASTERS = 3
SLOTS = 16384
NUMBER = count()


@dataclass(frozen=True)
class Server:
    """A running server; `raw` is redis-py's own client of it, signed in as the admin."""

    port: int
    process: "subprocess.Popen[bytes]"
    raw: Any

    def kill(self) -> None:
        """Kill it at once, as a machine that fails would."""
        self.process.kill()
        self.process.wait()

    def info(self, section: str) -> dict[str, Any]:
        """Return a section of INFO."""
        return dict(self.raw.info(section))


@dataclass(frozen=True)
class Site:
    """Servers with the users of infra/redis and, if there are certificates, TLS alone; the stack stops them."""

    folder: Path
    stack: ExitStack
    certificates: Certificates | None = None

    def start(self, *options: str) -> Server:
        """Start a server."""
        own = f"server-{next(NUMBER)}"
        # A file of its own: a server reads it only after its port is open, when the next one may be on its way.
        file = self.folder / f"{own}.acl"
        file.write_text(acl_file(PASSWORDS))
        users = ("--aclfile", str(file), "--masteruser", "replica", "--masterauth")
        return self._run(
            *("--dbfilename", f"{own}.rdb", "--save", "", "--maxmemory-policy", "noeviction"),
            *("--repl-diskless-sync-delay", "0", *users, PASSWORDS["replica"], *options),
            login={"username": "admin", "password": PASSWORDS["admin"]},
        )

    def replica_of(self, master: Server) -> Server:
        """Start a replica, and return it when it follows its master."""
        replica = self.start("--replicaof", f"{LOOPBACK} {master.port}")
        await_true(lambda: replica.info("replication")["master_link_status"] == "up")
        return replica

    def sentinels(self, master: Server, *options: str) -> list[Server]:
        """Start three sentinels over a master with one replica, and return them when they have found each other."""
        started = [self._sentinel(master) for _ in range(3)]
        found = {"num-other-sentinels": 2, "num-slaves": 1}
        for sentinel in started:
            await_true(lambda: found.items() <= sentinel.raw.sentinel_master(SERVICE).items())  # noqa: B023  reason: awaited at once
        return started

    def cluster(self, replicas: int = 0, options: Sequence[str] = ()) -> list[Server]:
        """Start a cluster of three masters, and replicas of the first of them; return its nodes when they all agree."""
        nodes = [self._node(*options) for _ in range(MASTERS + replicas)]
        for number, node in enumerate(nodes):
            node.raw.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number > 0:
                node.raw.execute_command("CLUSTER", "MEET", LOOPBACK, nodes[0].port, bus_of(nodes[0]))
            if number < MASTERS:
                share = range(SLOTS * number // MASTERS, SLOTS * (number + 1) // MASTERS)
                node.raw.execute_command("CLUSTER", "ADDSLOTS", *share)
        await_true(lambda: all(int(seen_by(node)["cluster_known_nodes"]) == len(nodes) for node in nodes))
        for replica, master in zip(nodes[MASTERS:], nodes, strict=False):
            replica.raw.execute_command("CLUSTER", "REPLICATE", id_of(master))
        await_true(lambda: all(node.info("replication")["master_link_status"] == "up" for node in nodes[MASTERS:]))
        await_true(lambda: all(seen_by(node)["cluster_state"] == "ok" for node in nodes))
        return nodes

    def url(self, user: str, *servers: Server, kind: str = "") -> str:
        """Return the URL of servers for a user; `kind` is "", "+sentinel" or "+cluster"."""
        options: dict[str, object] = {"sentinel_password": GUARD} if kind == "+sentinel" else {}
        if self.certificates is not None:
            options |= {"ssl_ca_certs": self.certificates.ca, "ssl_certfile": self.certificates.cert}
            options |= {"ssl_keyfile": self.certificates.key}
        hosts = ",".join(f"{LOOPBACK}:{server.port}" for server in servers)
        place = f"{user}:{quote(PASSWORDS[user], safe='')}@{hosts}{f'/{SERVICE}/0' if kind == '+sentinel' else ''}"
        return f"redis{'s' if self.certificates else ''}{kind}://{place}?{urlencode(options)}".removesuffix("?")

    def _node(self, *options: str) -> Server:
        bus = free_port()
        names = ("--cluster-port", str(bus), "--cluster-config-file", f"{bus}.conf")
        return self.start("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", *names, *options)

    def _sentinel(self, master: Server) -> Server:
        file = self.folder / f"sentinel-{free_port()}.conf"  # which sentinel itself goes on writing
        file.write_text(
            f"""sentinel monitor {SERVICE} {LOOPBACK} {master.port} 2
            sentinel auth-user {SERVICE} sentinel
            sentinel auth-pass {SERVICE} {PASSWORDS["sentinel"]}
            sentinel down-after-milliseconds {SERVICE} 500
            sentinel failover-timeout {SERVICE} 2000
            sentinel sentinel-pass {GUARD}
            requirepass {GUARD}"""
        )
        return self._run(str(file), "--sentinel", login={"password": GUARD})

    def _run(self, *options: str, login: dict[str, Any]) -> Server:
        if self.certificates is not None:
            require_tls()
        port = free_port()
        command = [redis_seven(), *options, "--bind", LOOPBACK, "--dir", str(self.folder), *self._listening(port)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.stack.callback(stop, process)
        await_port(port)
        tls: dict[str, Any] = {}
        if self.certificates is not None:
            files = self.certificates
            tls = {"ssl": True, "ssl_ca_certs": files.ca, "ssl_certfile": files.cert, "ssl_keyfile": files.key}
        raw: Any = redis.Redis(host=LOOPBACK, port=port, **login, **tls)
        self.stack.callback(raw.close)
        return Server(port, process, raw)

    def _listening(self, port: int) -> list[str]:
        if self.certificates is None:
            return ["--port", str(port)]
        files = self.certificates
        named = ("--tls-ca-cert-file", str(files.ca), "--tls-cert-file", str(files.cert), "--tls-key-file")
        ports = ("--port", "0", "--tls-port", str(port), "--tls-replication", "yes", "--tls-cluster", "yes")
        return [*ports, *named, str(files.key)]


@dataclass(frozen=True)
class Cluster:
    """A site's cluster."""

    site: Site
    nodes: list[Server]

    def url(self, user: str) -> str:
        """Return the URL of the cluster for a user."""
        return self.site.url(user, *self.nodes, kind="+cluster")

    def begin_move(self, key: str) -> "Move":
        """Begin to move the slot of a key from the master that has it to another one."""
        slot = key_slot(key.encode())
        shares = {first: (last, port) for first, last, (_, port, *_), *_ in raw_slots(self.nodes[0])}
        ports = [port for first, (last, port) in shares.items() if first <= slot <= last]
        source = next(node for node in self.nodes if node.port in ports)
        target = next(node for node in self.nodes if node is not source)
        move = Move(self, slot, source, target)
        target.raw.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", id_of(source))
        source.raw.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", id_of(target))
        return move


@dataclass(frozen=True)
class Move:
    """A slot on its way from one master to another."""

    cluster: Cluster
    slot: int
    source: Server
    target: Server

    def end(self) -> None:
        """Have every node know that the target has the slot."""
        for node in (self.target, self.source, *self.cluster.nodes):
            node.raw.execute_command("CLUSTER", "SETSLOT", self.slot, "NODE", id_of(self.target))

    def undo(self) -> None:
        """Leave the slot where it is."""
        for node in (self.source, self.target):
            node.raw.execute_command("CLUSTER", "SETSLOT", self.slot, "STABLE")


def raw_slots(node: Server) -> list[Any]:
    """Return what a node says of who has which slots."""
    return list(node.raw.execute_command("CLUSTER", "SLOTS"))


def id_of(node: Server) -> str:
    """Return what a node is called in its cluster."""
    return str(node.raw.execute_command("CLUSTER", "MYID").decode())


def over(url: str, work: Callable[[Link], Awaitable[T]]) -> T:
    """Return what `work` makes of a link to the Redis of `url`, which is closed after it."""

    async def session() -> T:
        opened = link(url)
        try:
            return await work(opened)
        finally:
            await opened.close()

    return asyncio.run(session())


def seen_by(node: Server) -> dict[str, str]:
    """Return what a node says of its cluster."""
    return dict(node.raw.cluster("info"))


def bus_of(node: Server) -> int:
    """Return the port at which a node talks to the others."""
    return int(node.raw.config_get("cluster-port")["cluster-port"])


def await_true(question: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until `question` is answered with yes."""
    deadline = time.monotonic() + seconds
    while not question():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not so after {seconds} s")
        time.sleep(0.05)


def redis_seven() -> str:
    """Return the server to test with, or skip the test where it is too old for the users of infra/redis."""
    told = subprocess.run([redis_binary(), "--version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"v=(\d+)", told)
    if version is None or int(version[1]) < 7:
        pytest.skip(f"the users of infra/redis need Redis 7; here is {told.strip()}")
    return redis_binary()


def require_tls() -> None:
    """Skip the test where the server was built without TLS: it stops at the first line that it does not know."""
    known = subprocess.run(
        [redis_binary(), "-"], input="tls-port 0\nunknown\n", capture_output=True, text=True, check=False
    )
    if "'unknown'" not in known.stderr:
        pytest.skip(f"{redis_binary()} was built without TLS")
