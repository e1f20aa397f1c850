"""What the URL of a Redis means: one server, the master that sentinels name, or a cluster."""

import re
import ssl
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, cast
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, NonNegativeInt

Kind = Literal["server", "sentinel", "cluster"]
Check = Literal["none", "optional", "required"]

SCHEME = r"unix|rediss?(?:\+(sentinel|cluster))?"
PORTS = {"server": 6379, "sentinel": 26379, "cluster": 6379}
PATHS = {
    "server": r"()/?([0-9]*)",
    "sentinel": r"/([A-Za-z0-9._-]+)/?([0-9]*)",
    "cluster": r"()/?(0?)",
}
CHECKS = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
URL_REMEDY = (
    "it is no URL of a Redis: write redis://user:password@host:port/0, redis+sentinel://user:password@host:port,"
    "host:port/SERVICE/0 or redis+cluster://user:password@host:port,host:port, with rediss in place of redis for TLS, "
    "or unix:///path?db=0, with special characters of the password percent-encoded. Options: db; for TLS ssl_ca_certs, "
    "ssl_certfile, ssl_keyfile (files that are there), ssl_cert_reqs, ssl_check_hostname; for sentinels "
    "sentinel_username, sentinel_password"
)


@dataclass(frozen=True)
class Tls:
    """The files of trusted authorities (None: the system's) and of the own certificate, and what is checked."""

    ca_certs: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    cert_reqs: Check = "required"
    check_hostname: bool = True

    @cached_property
    def context(self) -> ssl.SSLContext:
        """What connections are made with; raises `OSError` where a file cannot be used."""
        context = ssl.create_default_context(cafile=self.ca_certs)
        context.check_hostname = self.check_hostname and self.cert_reqs != "none"
        context.verify_mode = CHECKS[self.cert_reqs]
        if self.certfile or self.keyfile:
            context.load_cert_chain(self.certfile or "", self.keyfile)
        return context


@dataclass(frozen=True)
class Place:
    """Where one server is and how to sign in: `path` of a unix socket, else host and port, with TLS or without."""

    host: str = ""
    port: int = 0
    path: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    db: int = 0
    tls: Tls | None = None

    def at(self, host: str, port: int) -> "Place":
        """Return the place of another server, at which one signs in in the same way."""
        return replace(self, host=host, port=port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.path or f"{host}:{self.port}"


@dataclass(frozen=True)
class Target:
    """A Redis as it is run: `places` are the server, the sentinels, or some nodes of the cluster.

    `master` is how to sign in at the servers that sentinels or nodes name; `service` is what the sentinels call theirs.
    """

    kind: Kind
    places: tuple[Place, ...]
    master: Place
    service: str = ""


class _Options(BaseModel):
    """What may follow the question mark, in redis-py's spelling."""

    model_config = ConfigDict(extra="forbid")

    db: NonNegativeInt | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    ssl_ca_certs: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_cert_reqs: Check = "required"
    ssl_check_hostname: bool = True

    def given(self, prefix: str) -> bool:
        """Return whether an option of that prefix is given."""
        return any(name.startswith(prefix) for name in self.model_fields_set)


def target_of(url: str) -> Target:
    """Return what `url` means, or raise `ValueError`, which does not show it; nothing is connected."""
    try:
        return _target(urlsplit(url))
    except (ValueError, OSError):  # pydantic's faults are ValueErrors, those of TLS's files OSErrors
        raise ValueError(URL_REMEDY) from None


def address(url: str) -> str:
    """Return hosts, ports and service of a Redis URL, or the path of its socket: what may be shown of it.

    An address is its own.
    """
    if "://" not in url:
        return url
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return parts.path
    hosts = parts.netloc.rpartition("@")[2]
    return f"{hosts}/{parts.path.split('/')[1]}" if parts.scheme.endswith("+sentinel") else hosts


def _target(parts: SplitResult) -> Target:
    kind = cast("Kind", _match(SCHEME, parts.scheme)[1] or "server")
    options = _options(parts, kind)
    master, hosts = _master(parts, options)
    if parts.scheme == "unix":
        master = replace(master, path=_match("/.+", unquote(parts.path))[0])
        return Target(kind, (master,), master)
    service, db = _match(PATHS[kind], parts.path).groups()
    if options.db is None:
        master = replace(master, db=int(db or 0))
    known = master
    if kind == "sentinel":
        known = replace(master, username=options.sentinel_username, password=options.sentinel_password, db=0)
    places = tuple(known.at(*_host(host, PORTS[kind])) for host in hosts.split(","))
    if (kind == "server" and len(places) > 1) or (kind == "cluster" and master.db):
        raise ValueError
    return Target(kind, places, master, service)


def _options(parts: SplitResult, kind: Kind) -> _Options:
    pairs = parse_qsl(parts.query, strict_parsing=True, keep_blank_values=True) if parts.query else []
    options = _Options.model_validate(dict(pairs))
    if options.given("ssl_") and not parts.scheme.startswith("rediss"):
        raise ValueError
    if options.given("sentinel_") and kind != "sentinel":
        raise ValueError
    return options


def _master(parts: SplitResult, options: _Options) -> tuple[Place, str]:
    """Return a place without its address, and what stands there for addresses."""
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    if parts.fragment or (parts.scheme == "unix" and hosts):
        raise ValueError
    tls = _tls(options) if parts.scheme.startswith("rediss") else None
    signed = Place(username=unquote(username) or None, password=unquote(password) or None, tls=tls)
    return replace(signed, db=options.db or 0), hosts


def _tls(options: _Options) -> Tls:
    tls = Tls(
        options.ssl_ca_certs,
        options.ssl_certfile,
        options.ssl_keyfile,
        options.ssl_cert_reqs,
        options.ssl_check_hostname,
    )
    _ = tls.context  # the files are read now: what is wrong with them is known before anything is asked
    return tls


def _host(host: str, port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{host}")
    if not parts.hostname:
        raise ValueError
    return parts.hostname, port if parts.port is None else parts.port


def _match(pattern: str, text: str) -> re.Match[str]:
    matched = re.fullmatch(pattern, text)
    if matched is None:
        raise ValueError
    return matched
