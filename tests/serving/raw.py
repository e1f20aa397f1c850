"""HTTP over a plain socket: exactly the bytes that a test wants, cut where it wants."""

import json
import socket
from dataclasses import dataclass
from http.client import HTTPResponse
from io import BufferedReader
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import urlsplit

HOST = b"Host: service\r\n"


@dataclass(frozen=True)
class Answer:
    """An answer as it came; names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class RawClient:
    """One connection to a service."""

    def __init__(self, url: str, seconds: float = 20) -> None:
        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname or "", parts.port or 0), seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self.socket.close()

    def ask(self, request: bytes, method: str = "GET") -> Answer:
        """Send bytes that are one request, and return the answer."""
        self.socket.sendall(request)
        return self.receive(method)

    def receive(self, method: str = "GET") -> Answer:
        """Return the next answer; it reads no byte beyond it."""
        response = HTTPResponse(self.socket, method=method)
        response.fp.close()
        with self.socket.makefile("rb", buffering=0) as stream:
            response.fp = cast("BufferedReader", stream)
            response.begin()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, headers, response.read())

    def ended(self) -> bool:
        """Whether the service ends the connection, without another byte."""
        return self.socket.recv(1) == b""


def get(target: str, *headers: str) -> bytes:
    """Return a GET of a target that is written as it is to be sent."""
    lines = "".join(f"{line}\r\n" for line in headers)
    return b"GET " + target.encode() + b" HTTP/1.1\r\n" + HOST + lines.encode("latin-1") + b"\r\n"


def post(target: str, body: bytes, *headers: str) -> bytes:
    """Return a POST of JSON."""
    lines = "".join(f"{line}\r\n" for line in ("Content-Type: application/json", *headers))
    head = f"POST {target} HTTP/1.1\r\n{lines}Content-Length: {len(body)}\r\n"
    return head.encode("latin-1") + HOST + b"\r\n" + body
