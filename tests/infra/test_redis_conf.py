"""redis.conf: a server starts with it and keeps what was published; it knows all that the file offers in comments."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import redis

from infra.redis.users import TEMPLATE, acl_file
from serving.store import Store
from tests.conftest import await_port, free_port, stop
from tests.serving.certificates import certificates_in
from tests.serving.publishing import publish
from tests.serving.topologies import PASSWORDS, redis_seven, require_tls

CONF = TEMPLATE.with_name("redis.conf")
OFFERED = tuple(f"# {name}" for name in ("tls-", "min-replicas-", "cluster-", "io-threads"))


@contextmanager
def started(folder: Path, *options: str) -> Iterator[int]:
    """Run a server with the file until the block ends; gives its port."""
    (folder / "users.acl").write_text(acl_file(PASSWORDS))
    port = free_port()
    here = ("--port", str(port), "--dir", str(folder), "--aclfile", str(folder / "users.acl"))
    process = subprocess.Popen([redis_seven(), str(CONF), *here, *options], stdout=subprocess.DEVNULL)
    try:
        await_port(port)
        yield port
    finally:
        stop(process)


def url_at(port: int) -> str:
    return f"redis://publisher:{quote(PASSWORDS['publisher'], safe='')}@127.0.0.1:{port}"


def test_a_server_takes_a_publication_and_keeps_it_over_a_restart(tmp_path: Path) -> None:
    with started(tmp_path) as port, Store(url_at(port)) as store:
        store.require_noeviction()
        head = publish(store, "kept", 1, {"a": 0.5})
    with started(tmp_path) as port, Store(url_at(port)) as store:
        assert store.head("kept") == head


def test_a_server_knows_what_is_offered_in_comments(tmp_path: Path) -> None:
    require_tls()
    made = certificates_in(tmp_path / "tls")
    offered = [line[2:].split() for line in CONF.read_text().splitlines() if line.startswith(OFFERED)]
    own = {"tls-cert-file": made.cert, "tls-key-file": made.key, "tls-ca-cert-file": made.ca, "tls-port": free_port()}
    options = {name: str(own.get(name, value)) for name, value in offered}
    bus = ("--cluster-port", str(free_port()))  # of its own choice it may be beyond the highest
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    login: dict[str, Any] = {"username": "admin", "password": PASSWORDS["admin"]}
    with started(tmp_path, *bus, *arguments) as port, redis.Redis("127.0.0.1", port, **login) as admin:
        known = admin.config_get(*options)
    assert {name: known[name] for name in options} == options
