"""What of a request is let in: the key in the path as it was meant, and a body of bounded size."""

from urllib.parse import unquote_to_bytes

from fastapi import HTTPException, Request
from starlette.convertors import Convertor
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import KeyRefused


class KeyConvertor(Convertor[str]):
    """Starlette's own `path` ends at a line break, and so would answer for another key."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        """Return the key as it came."""
        return value

    def to_string(self, value: str) -> str:
        """Return the key as it is."""
        return value


def require_utf8(request: Request) -> None:
    """The server reads bytes that are no UTF-8 as U+FFFD; they must not be answered for as another key."""
    try:
        unquote_to_bytes(request.scope["raw_path"]).decode()
    except UnicodeDecodeError as fault:
        raise KeyRefused("the key in the path is not UTF-8: percent-encode its UTF-8 bytes") from fault


class BoundedBody:
    """ASGI middleware: a body beyond `most` bytes is answered with 413 before it is all read."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app = app
        self.most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting what is read of its body."""
        read = 0

        async def bounded() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.most:
                raise HTTPException(413, f"a body of more than {self.most} bytes: send fewer keys")
            return message

        await self.app(scope, bounded, send)
